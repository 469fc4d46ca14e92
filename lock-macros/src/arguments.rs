//! What stands in the parentheses of `#[locked(…)]`.

use std::time::Duration;

use syn::{
    Expr, Ident, Path, Token,
    ext::IdentExt,
    parse::{Parse, ParseStream},
};

use crate::span::{Span, Wait};

/// The arguments, each at most once.
pub(crate) struct Arguments {
    pub(crate) name: Expr,
    pub(crate) ttl: Option<Span>,
    pub(crate) at_most_for: Option<Span>,
    pub(crate) at_least_for: Option<Span>,
    pub(crate) wait: Option<Wait>,
    pub(crate) tick: Option<Expr>,
    pub(crate) retry: Option<Ident>,
    pub(crate) label: Option<Expr>,
    pub(crate) locks: Option<Expr>,
    pub(crate) krate: Option<Path>,
}

const KNOWN: &str = "`name`, `ttl`, `at_most_for`, `at_least_for`, `wait`, `tick`, `retry`, `label`, `locks`, `crate`";

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut name, mut ttl, mut at_most_for, mut at_least_for, mut wait) = (None, None, None, None, None);
        let (mut tick, mut retry, mut label, mut locks, mut krate) = (None, None, None, None, None);
        if input.is_empty() {
            return Err(input.error("say which lock: `#[locked(name = \"…\")]`"));
        }
        while !input.is_empty() {
            if input.peek(syn::LitStr) {
                return Err(input.error("write `name = ` before the name of the lock"));
            }
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "name" => once(&key, &mut name, value(input)?)?,
                "ttl" => once(&key, &mut ttl, value(input)?)?,
                "at_most_for" => once(&key, &mut at_most_for, value(input)?)?,
                "at_least_for" => once(&key, &mut at_least_for, value(input)?)?,
                "wait" => once(&key, &mut wait, value(input)?)?,
                "tick" => once(&key, &mut tick, value(input)?)?,
                "label" => once(&key, &mut label, value(input)?)?,
                "locks" => once(&key, &mut locks, value(input)?)?,
                "crate" => once(&key, &mut krate, value(input)?)?,
                "retry" if input.peek(Token![=]) => return Err(input.error("`retry` stands alone")),
                "retry" => once(&key, &mut retry, key.clone())?,
                other => {
                    let message = format!("there is no argument `{other}`; there are {KNOWN}");
                    return Err(syn::Error::new_spanned(&key, message));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let name = name.ok_or_else(|| {
            syn::Error::new(proc_macro2::Span::call_site(), "say which lock: `#[locked(name = \"…\")]`")
        })?;
        let arguments = Self { name, ttl, at_most_for, at_least_for, wait, tick, retry, label, locks, krate };
        arguments.check()?;
        Ok(arguments)
    }
}

impl Arguments {
    /// What can be seen to be wrong before the program runs.
    fn check(&self) -> syn::Result<()> {
        for (what, span) in [("ttl", &self.ttl), ("at_most_for", &self.at_most_for)] {
            if let Some(Span::Text(Duration::ZERO, text)) = span {
                return Err(syn::Error::new_spanned(text, format!("`{what}` can't be zero")));
            }
        }
        let known = |span: &Option<Span>| span.as_ref().and_then(Span::known);
        if let (Some(most), Some(least), Some(Span::Text(_, text))) =
            (known(&self.at_most_for), known(&self.at_least_for), &self.at_least_for)
            && least > most
        {
            return Err(syn::Error::new_spanned(text, "`at_least_for` can't be longer than `at_most_for`"));
        }
        match &self.retry {
            Some(retry) if self.tick.is_none() => {
                Err(syn::Error::new_spanned(retry, "`retry` is about ticks: say which with `tick = …`"))
            }
            _ => Ok(()),
        }
    }
}

fn value<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn once<T>(key: &Ident, place: &mut Option<T>, value: T) -> syn::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(syn::Error::new_spanned(key, format!("`{key}` is said twice"))),
    }
}
