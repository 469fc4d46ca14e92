//! What becomes of the function.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    Attribute, Block, FnArg, Ident, Pat, ReturnType, Signature, Token, Type, Visibility,
    parse::{Parse, ParseStream},
    spanned::Spanned,
};

use crate::{
    arguments::Arguments,
    span::{Wait, text},
    template,
};

/// A function or method with a body.
pub(crate) struct Function {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
    body: Block,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let wrong = "`#[locked]` goes on an async function or method";
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature: Signature = input.parse().map_err(|error| syn::Error::new(error.span(), wrong))?;
        if input.peek(Token![;]) {
            return Err(input.error("`#[locked]` needs a body to run: put it on the function that has one"));
        }
        Ok(Self { attributes, visibility, signature, body: input.parse()? })
    }
}

pub(crate) fn expand(arguments: &Arguments, function: Function) -> syn::Result<TokenStream> {
    let Function { attributes, visibility, mut signature, body } = function;
    if signature.asyncness.is_none() {
        let message = "`#[locked]` needs an `async fn`; blocking work goes through `Lock::run_blocking`";
        return Err(syn::Error::new_spanned(signature.fn_token, message));
    }
    let returned: Type = match &signature.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, returned) => (**returned).clone(),
    };
    if let Type::Never(never) = &returned {
        return Err(syn::Error::new_spanned(never, "work under a lock has to end: give it a type to return"));
    }

    let krate = arguments.krate.as_ref().map_or_else(|| quote!(::leasehold), |path| quote!(#path));
    // Of our own, so that no argument of the function can be meant.
    let lock = Ident::new("lock", Span::mixed_site());
    let wish = wish(arguments, &signature, &krate)?;
    let (failed, typed) = judged(&returned, &krate);
    let statements = &body.stmts;
    let output = quote_spanned!(returned.span()=>
        -> ::core::result::Result<#krate::Outcome<#returned>, #krate::LockError>
    );
    signature.output = syn::parse2(output)?;
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            let #lock = #wish;
            #krate::__private::run(#lock, #failed, async move {
                #typed
                #(#statements)*
            })
            .await
        }
    })
}

/// The lock, with all that is wanted of it.
fn wish(arguments: &Arguments, signature: &Signature, krate: &TokenStream) -> syn::Result<TokenStream> {
    let mut class = None;
    let name = match text(&arguments.name) {
        Some(text) => {
            class = Some(text.value());
            template::name(text, &named(signature))?
        }
        None => {
            let name = &arguments.name;
            quote!(::std::string::ToString::to_string(&(#name)))
        }
    };
    let locks = match &arguments.locks {
        Some(locks) => quote!((#locks)),
        None => quote!(#krate::__private::installed()?),
    };
    let mut wish = quote!(#locks.lock(#name).reentrant());
    let mut add = |more: TokenStream| wish.extend(more);
    let label = match &arguments.label {
        Some(label) => quote!(#label),
        None => {
            let function = signature.ident.to_string();
            quote!(#function)
        }
    };
    add(quote!(.label(#label)));
    if let Some(class) = class {
        add(quote!(.class(#class)));
    }
    match &arguments.wait {
        None => add(quote!(.no_wait())),
        Some(Wait::AtMost(wait)) => add(quote!(.wait_at_most(#wait))),
        Some(Wait::Forever) => {}
    }
    for (method, span) in
        [("ttl", &arguments.ttl), ("at_most_for", &arguments.at_most_for), ("at_least_for", &arguments.at_least_for)]
    {
        let method = format_ident!("{method}");
        if let Some(span) = span {
            add(quote!(.#method(#span)));
        }
    }
    if let Some(tick) = &arguments.tick {
        add(quote!(.tick(#tick)));
    }
    if arguments.retry.is_some() {
        add(quote!(.retry()));
    }
    Ok(wish)
}

/// How to see that work failed though it ended, and what tells the compiler what the work gives.
fn judged(returned: &Type, krate: &TokenStream) -> (TokenStream, TokenStream) {
    if names_no_type(returned) {
        return (quote!(|_| false), TokenStream::new());
    }
    let value = Ident::new("value", Span::mixed_site());
    let failed = quote! {
        |#value: &#returned| {
            #[allow(unused_imports)]
            use #krate::__private::{ByDefault as _, ByResult as _};
            (&#krate::__private::Judged(#value)).failed()
        }
    };
    let typed = quote_spanned! { returned.span()=>
        #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::empty_loop, clippy::needless_return)]
        if false {
            let #value: #returned = loop {};
            return #value;
        }
    };
    (failed, typed)
}

/// Whether `impl Trait` is in it: then it can't be written down elsewhere.
fn names_no_type(returned: &Type) -> bool {
    fn search(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            proc_macro2::TokenTree::Ident(ident) => ident == "impl",
            proc_macro2::TokenTree::Group(group) => search(group.stream()),
            _ => false,
        })
    }
    search(quote!(#returned))
}

/// The names of the arguments.
fn named(signature: &Signature) -> Vec<Ident> {
    let mut names = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => names.push(Ident::from(receiver.self_token)),
            FnArg::Typed(typed) => bound(&typed.pat, &mut names),
        }
    }
    names
}

fn bound(pattern: &Pat, names: &mut Vec<Ident>) {
    match pattern {
        Pat::Ident(named) => names.push(named.ident.clone()),
        Pat::Reference(inner) => bound(&inner.pat, names),
        Pat::Tuple(tuple) => tuple.elems.iter().for_each(|each| bound(each, names)),
        Pat::TupleStruct(tuple) => tuple.elems.iter().for_each(|each| bound(each, names)),
        Pat::Struct(fields) => fields.fields.iter().for_each(|each| bound(&each.pat, names)),
        Pat::Slice(slice) => slice.elems.iter().for_each(|each| bound(each, names)),
        Pat::Type(typed) => bound(&typed.pat, names),
        _ => {}
    }
}
