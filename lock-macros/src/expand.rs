//! What becomes of the function.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{
    AttrStyle, Attribute, Block, FnArg, Ident, Pat, ReturnType, Signature, Stmt, Token, Type, Visibility, braced,
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
    body: Vec<Stmt>,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let wrong = "`#[locked]` goes on an async function or method";
        let mut attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature: Signature = input.parse().map_err(|error| syn::Error::new(error.span(), wrong))?;
        if input.peek(Token![;]) {
            return Err(input.error("`#[locked]` needs a body to run: put it on the function that has one"));
        }
        let within;
        braced!(within in input);
        for mut attribute in within.call(Attribute::parse_inner)? {
            attribute.style = AttrStyle::Outer;
            attributes.push(attribute);
        }
        Ok(Self { attributes, visibility, signature, body: within.call(Block::parse_within)? })
    }
}

pub(crate) fn expand(arguments: &Arguments, function: Function) -> syn::Result<TokenStream> {
    let Function { attributes, visibility, mut signature, body } = function;
    if signature.asyncness.is_none() {
        let message = "`#[locked]` needs an `async fn`; blocking work goes through `Lock::run_blocking`, and under \
                       `#[async_trait]` it goes on a method of its own that the trait's calls";
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
    // Of our own, so that nothing of the function can be meant.
    let [lock, typed] = ["lock", "typed"].map(|name| Ident::new(name, Span::mixed_site()));
    let arguments_of_body = captured(&mut signature);
    let wish = wish(arguments, &signature, &krate)?;
    let Judged { failed, fixed, given } = judged(&returned, &krate, &typed);
    // In the type's place, for errors, and yet the macro's, so that no lint takes it for the user's.
    let output = quote_spanned!(Span::mixed_site().located_at(returned.span())=>
        -> ::core::result::Result<#krate::Outcome<#returned>, #krate::LockError>
    );
    signature.output = syn::parse2(output)?;
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            let #lock = #wish;
            #fixed
            #krate::__private::run(#lock, #failed, async move {
                // All of them, whole: they are dropped with the body, under the lock, as those of any function are.
                #(let _ = &#arguments_of_body;)*
                #given
                #(#body)*
            })
            .await
        }
    })
}

/// The names of what the body gets; what has none is given one.
fn captured(signature: &mut Signature) -> Vec<Ident> {
    for (number, input) in signature.inputs.iter_mut().enumerate() {
        if let FnArg::Typed(typed) = input
            && matches!(*typed.pat, Pat::Wild(_))
        {
            let name = Ident::new(&format!("unnamed_{number}"), Span::mixed_site());
            *typed.pat = syn::parse_quote!(#name);
        }
    }
    named(signature)
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

/// What is known of what the work gives.
struct Judged {
    /// How to see that work failed though it ended.
    failed: TokenStream,
    /// Before the body, where its own items can't be meant: the type.
    fixed: TokenStream,
    /// In the body: what tells the compiler that it gives that.
    given: TokenStream,
}

fn judged(returned: &Type, krate: &TokenStream, typed: &Ident) -> Judged {
    if names_no_type(returned) {
        let failed = if is_result(returned) { quote!(#krate::__private::is_err) } else { quote!(|_| false) };
        return Judged { failed, fixed: TokenStream::new(), given: TokenStream::new() };
    }
    let value = Ident::new("value", Span::mixed_site());
    Judged {
        failed: quote! {
            |#value: &#returned| {
                use #krate::__private::judge::*;
                (&Judged(#value)).failed()
            }
        },
        fixed: quote_spanned!(returned.span()=> let #typed = #krate::__private::never::<#returned>;),
        given: quote_spanned!(returned.span()=> if false { return #typed(); }),
    }
}

fn is_result(returned: &Type) -> bool {
    matches!(returned, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result"))
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
