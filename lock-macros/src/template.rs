//! Names with arguments in them: `mail-{shard}`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Expr, Ident, LitStr};

/// Makes the name, or says what is wrong with it. `arguments` are those of the function, `self` among them if it has one.
pub(crate) fn name(text: &LitStr, arguments: &[Ident]) -> syn::Result<TokenStream> {
    let error = |message: String| syn::Error::new_spanned(text, message);
    let value = text.value();
    let (mut format, mut values) = (String::new(), Vec::new());
    let mut rest = value.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        format.push_str(&rest[..at]);
        let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
        if let Some(after) = after.strip_prefix(brace) {
            // A doubled brace is one that is meant.
            format.push_str(&brace.repeat(2));
            rest = after;
            continue;
        }
        let end = match brace {
            "{" => after.find('}'),
            _ => return Err(error("this `}` closes nothing; write `}}` for one that belongs to the name".into())),
        };
        let Some(end) = end else {
            return Err(error("this `{` is not closed; write `{{` for one that belongs to the name".into()));
        };
        let (inside, spec) = after[..end].split_once(':').map_or((&after[..end], ""), |(inside, spec)| (inside, spec));
        values.push(placed(inside.trim(), text, arguments)?);
        format.push_str(&if spec.is_empty() { "{}".to_owned() } else { format!("{{:{spec}}}") });
        rest = &after[end + 1..];
    }
    format.push_str(rest);
    if values.is_empty() {
        check(&value.replace("{{", "{").replace("}}", "}")).map_err(error)?;
    }
    let format = LitStr::new(&format, text.span());
    Ok(quote!(::std::format!(#format #(, #values)*)))
}

/// What stands between two braces: an argument, or a field of one.
fn placed(inside: &str, text: &LitStr, arguments: &[Ident]) -> syn::Result<Expr> {
    let error = |message: String| syn::Error::new_spanned(text, message);
    let there = || match arguments {
        [] => "this function has none".to_owned(),
        _ => format!("there are {}", arguments.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    if inside.is_empty() {
        return Err(error(format!("say which argument goes between `{{` and `}}`; {}", there())));
    }
    // Parsed from a literal, so that what goes wrong with it later is shown at the name.
    let expr: Expr = LitStr::new(inside, text.span())
        .parse()
        .map_err(|_| error(format!("`{{{inside}}}` is neither an argument nor a field of one; {}", there())))?;
    let mut root = &expr;
    while let Expr::Field(field) = root {
        root = &field.base;
    }
    match root {
        Expr::Path(path) if path.path.get_ident().is_some_and(|ident| arguments.contains(ident)) => Ok(expr),
        _ => Err(error(format!("`{{{inside}}}` is neither an argument nor a field of one; {}", there()))),
    }
}

/// The rules of `LockName`, for a name that is known by now.
fn check(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("a lock's name can't be empty".into()),
        1..=512 if name.contains('\0') => Err("a lock's name can't contain a NUL byte".into()),
        1..=512 => Ok(()),
        bytes => Err(format!("a lock's name has at most 512 bytes, this one has {bytes}")),
    }
}
