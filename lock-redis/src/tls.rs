//! Cryptography for TLS: the driver leaves open who does it, and panics if nobody said.

use redis::ConnectionAddr;

/// Before a connection to this address: sets the process's default to ring, unless the application has set one.
pub(crate) fn prepare(address: &ConnectionAddr) {
    if matches!(address, ConnectionAddr::TcpTls { .. }) {
        prepare_any();
    }
}

/// Before connections whose addresses aren't known.
pub(crate) fn prepare_any() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may be faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
