//! The scripts, and a call of one of them.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use redis::Cmd;

/// A script that servers keep under its hash.
#[derive(Debug)]
pub(crate) struct Script {
    text: Cow<'static, str>,
    hash: String,
}

impl Script {
    /// Shared by its calls.
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Arc<Self> {
        let text = text.into();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Arc::new(Self { text, hash })
    }
}

/// Scripts that work on something else than records of locks.
macro_rules! plain_scripts {
    ($($name:ident = $file:literal;)*) => {$(
        pub(crate) static $name: LazyLock<Arc<Script>> =
            LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));
    )*};
}
plain_scripts! {
    FENCE_HIGHEST = "fence_highest.lua";
    FENCE_FORGET = "fence_forget.lua";
    FENCE_PROBE = "fence_probe.lua";
}

/// What judges a fenced call, by a register or by the record of the lock; the caller's script comes before.
pub(crate) const ADMIT: &str = concat!(include_str!("lua/fence_call.lua"), include_str!("lua/fence_admit.lua"));
pub(crate) const HOLD: &str =
    concat!(include_str!("lua/record.lua"), include_str!("lua/fence_call.lua"), include_str!("lua/fence_hold.lua"));

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        pub(crate) static $name: LazyLock<Arc<Script>> = LazyLock::new(|| {
            Script::new(concat!(include_str!("lua/record.lua"), include_str!(concat!("lua/", $file))))
        });
    )*};
}
scripts! {
    ACQUIRE = "acquire.lua";
    RENEW = "renew.lua";
    RELEASE = "release.lua";
    FORCE_RELEASE = "force_release.lua";
    INSPECT = "inspect.lua";
    PROBE = "probe.lua";
}

/// A script with what it works on. The keys are of one slot where the server is part of a cluster.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) script: Arc<Script>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(script: &Arc<Script>, keys: Vec<Vec<u8>>, arguments: Vec<Vec<u8>>) -> Self {
        Self { script: Arc::clone(script), keys, arguments }
    }

    /// For a server that knows the script: `EVALSHA`.
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// For a server that doesn't (a new one, after `SCRIPT FLUSH`, after a fail-over): `EVAL`, which makes it known.
    pub(crate) fn by_text(&self) -> Cmd {
        self.command("EVAL", &self.script.text)
    }

    fn command(&self, command: &str, script: &str) -> Cmd {
        let mut call = redis::cmd(command);
        call.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        call
    }
}
