//! The header.

use http::{HeaderMap, HeaderName, HeaderValue};
use lock_core::{Fence, InvalidFence, ToFence};

use super::refusal::Refusal;

/// `Fencing-Token`: its value is a [`Fence`] as text, such as `1764328000123456@invoice-42`.
pub const HEADER: HeaderName = HeaderName::from_static("fencing-token");

/// The header that says under which grant a request is made, as name and value: for any HTTP client.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let lease: lock_core::Fence = "5@invoice-42".parse()?;
/// let (name, value) = lock_fence::service::header(&lease)?;
/// let request = http::Request::put("http://ledger/accounts/42").header(name, value).body("100")?;
/// assert_eq!(request.headers()["fencing-token"], "5@invoice-42");
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`InvalidFence`] for a lease that isn't exclusive.
pub fn header(lease: &impl ToFence) -> Result<(HeaderName, HeaderValue), InvalidFence> {
    let fence = lease.to_fence()?;
    // A fence as text is made of visible ASCII.
    let value = HeaderValue::try_from(fence.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""));
    Ok((HEADER, value))
}

/// The fence that a request carries; `None` if it carries none.
///
/// # Errors
/// [`Refusal::Invalid`] for a header that isn't a fence, or comes more than once.
pub fn read(headers: &HeaderMap) -> Result<Option<Fence>, Refusal> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(HEADER) {
            true => Err(Refusal::Repeated),
            false => Ok(None),
        };
    };
    // What isn't ASCII is shown with replacement characters.
    let text = String::from_utf8_lossy(value.as_bytes());
    Ok(Some(text.parse::<Fence>().map_err(Refusal::Invalid)?))
}
