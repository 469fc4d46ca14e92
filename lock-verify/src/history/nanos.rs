//! Times as whole nanoseconds in JSON: exact, and the same in every language.

/// A [`Moment`](lock_core::Moment).
pub(super) mod moment {
    use lock_core::Moment;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::history) fn serialize<S: Serializer>(at: &Moment, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.as_nanos())
    }

    pub(in crate::history) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Moment, D::Error> {
        u64::deserialize(from).map(Moment::from_nanos)
    }
}

/// A [`Moment`](lock_core::Moment), if there is one.
pub(super) mod some_moment {
    use lock_core::Moment;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::history) fn serialize<S: Serializer>(at: &Option<Moment>, to: S) -> Result<S::Ok, S::Error> {
        at.map(Moment::as_nanos).serialize(to)
    }

    pub(in crate::history) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Moment>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Moment::from_nanos))
    }
}

/// A [`Duration`](std::time::Duration), if there is one; 584 years at most.
pub(super) mod some_span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::history) fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(in crate::history) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
    }
}

/// An [`OwnerId`](lock_core::OwnerId), if there is one, as its 32 hex digits.
pub(super) mod some_owner {
    use std::borrow::Cow;

    use lock_core::OwnerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::history) fn serialize<S: Serializer>(owner: &Option<OwnerId>, to: S) -> Result<S::Ok, S::Error> {
        match owner {
            Some(owner) => to.collect_str(owner),
            None => to.serialize_none(),
        }
    }

    pub(in crate::history) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OwnerId>, D::Error> {
        let text = Option::<Cow<'de, str>>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
