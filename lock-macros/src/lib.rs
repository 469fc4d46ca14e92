//! `#[locked]`, as the crate `leasehold` re-exports it (feature `macros`, on by default).

mod arguments;
mod expand;
mod span;
mod template;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Runs an async function or method under a distributed lock.
///
/// ```
/// use leasehold::prelude::*;
///
/// #[leasehold::locked(name = "mail-{shard}", ttl = "20s", at_most_for = "10m")]
/// async fn send_mail(shard: u32) -> usize {
///     // … `lease!()` is the lease that this runs under.
///     # 3
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// leasehold::install(leasehold::connect("memory:").await?); // once, when the program starts
/// match send_mail(7).await? {
///     Outcome::Ran(sent) => println!("sent {sent}"),
///     Outcome::Skipped(why) => println!("left to somebody else: {why}"),
/// }
/// # Ok(()) }
/// ```
///
/// The function then returns `Result<Outcome<T>, LockError>`, `T` being what was written: `Ran(T)` if it ran to its end
/// under the lock, `Skipped` if somebody else had the lock or the tick, `Err(Lost)` if it was dropped because the lease
/// was lost or at-most-for was over, `Err(Store)` if the store failed. The body's own errors stay inside: `Ran(Err(_))`.
/// What drops it, and when, is told at `Lock::run`.
///
/// A locked function that another of the same lock calls, in the same task, runs under the lease that is there already.
///
/// | argument | meaning | without it |
/// |---|---|---|
/// | `name = "mail-{shard}"` | the lock; in braces arguments, or fields of them (`{order.id}`, `{self.tenant}`), with a format if need be (`{shard:03}`). Any other expression is taken as it is | needed |
/// | `ttl = "20s"` | how soon others may take over when this process vanishes; it is renewed meanwhile | 30 s |
/// | `at_most_for = "10m"` | the body is dropped after this | no limit |
/// | `at_least_for = "30s"` | the lock stays taken this long, even when the body ends sooner | not at all |
/// | `wait = "5s"`, `wait = "forever"` | how long to wait for the lock | doesn't wait |
/// | `tick = fired_at` | the scheduled time this run is for (a `SystemTime` or a `Tick`): at most one run per tick over all processes | no ticks |
/// | `retry` | a tick is used up by a run that ended well, and may be run again after one that didn't (an `Err`, a panic, a loss) | a tick is used up when its run begins |
/// | `label = "…"` | for people who look at the lock | the function's name |
/// | `locks = self.locks` | which `Locks` | those that were installed |
/// | `crate = path` | where `leasehold` is, if it goes by another name | `::leasehold` |
///
/// Times are texts (`"1h30m"`, checked when the program is compiled) or expressions of type `Duration`.
#[proc_macro_attribute]
pub fn locked(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let function = parse_macro_input!(function as expand::Function);
    let arguments = parse_macro_input!(arguments as arguments::Arguments);
    expand::expand(&arguments, function).unwrap_or_else(syn::Error::into_compile_error).into()
}
