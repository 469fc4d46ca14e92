//! Spans of time, written as text.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Expr, Lit, LitStr,
    parse::{Parse, ParseStream},
};

/// A time that an argument gives.
pub(crate) enum Span {
    /// A text, read when the program is compiled.
    Text(Duration, LitStr),
    /// Anything else: an expression of type `Duration`.
    Expr(Expr),
}

impl Span {
    /// Its length, if it is known by now.
    pub(crate) fn known(&self) -> Option<Duration> {
        match self {
            Self::Text(length, _) => Some(*length),
            Self::Expr(_) => None,
        }
    }
}

impl Parse for Span {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let expr: Expr = input.parse()?;
        match text(&expr) {
            Some(text) => Ok(Self::Text(length(text)?, text.clone())),
            None => match &expr {
                Expr::Lit(literal) => {
                    Err(syn::Error::new_spanned(literal, "write a time as text, such as \"30s\", \"5m\" or \"1h30m\""))
                }
                _ => Ok(Self::Expr(expr)),
            },
        }
    }
}

impl ToTokens for Span {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Text(length, _) => {
                let (seconds, nanos) = (length.as_secs(), length.subsec_nanos());
                tokens.extend(quote!(::core::time::Duration::new(#seconds, #nanos)));
            }
            Self::Expr(expr) => expr.to_tokens(tokens),
        }
    }
}

/// How long to wait.
pub(crate) enum Wait {
    Forever,
    AtMost(Span),
}

impl Parse for Wait {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) && input.fork().parse::<LitStr>()?.value() == "forever" {
            input.parse::<LitStr>()?;
            return Ok(Self::Forever);
        }
        input.parse().map(Self::AtMost)
    }
}

/// The text, if it is one.
pub(crate) fn text(expr: &Expr) -> Option<&LitStr> {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn length(text: &LitStr) -> syn::Result<Duration> {
    let value = text.value();
    humantime::parse_duration(&value).map_err(|why| {
        let message = format!("{value:?} is no time ({why}); write for example \"30s\", \"5m\" or \"1h30m\"");
        syn::Error::new_spanned(text, message)
    })
}
