//! The scripts that run at each master.

use std::sync::{Arc, LazyLock};

use crate::scripts::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(crate) static $name: LazyLock<Arc<Script>> = LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));
    )*};
}
scripts! {
    CLAIM = "claim.lua";
    ACCEPT = "accept.lua";
    RENEW = "renew.lua";
    RELEASE = "release.lua";
    FORCE_RELEASE = "force_release.lua";
    INSPECT = "inspect.lua";
}
