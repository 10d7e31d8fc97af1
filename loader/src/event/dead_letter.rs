//! Why an event cannot be loaded: the fixed words that dead letters carry. Storing them is the sink's work.

use std::fmt;

/// Where an event failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The bytes are not a JSON object that Postgres can store.
    Decode,
    /// The object lacks what every event must have.
    Envelope,
    /// Its date takes no more rows.
    Partition,
    /// Postgres refused the row for another reason.
    Database,
}

impl Stage {
    /// The word in `loader.dead_letters.stage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Envelope => "envelope",
            Stage::Partition => "partition",
            Stage::Database => "database",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $stage:ident, $word:literal;)*) => {
        /// Why an event could not be loaded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every one of them.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The word in `loader.dead_letters.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// Where this reason arises.
            pub fn stage(self) -> Stage {
                match self { $(Reason::$name => Stage::$stage,)* }
            }
        }
    };
}

reasons! {
    /// Longer than the size limit.
    TooLarge = Decode, "too_large";
    /// Begins like the messages of producers that use a schema registry.
    RegistryFraming = Decode, "registry_framing";
    /// Not UTF-8.
    InvalidUtf8 = Decode, "invalid_utf8";
    /// Not JSON.
    InvalidJson = Decode, "invalid_json";
    /// JSON, but not an object.
    NotAnObject = Decode, "not_an_object";
    /// Contains the escape `\u0000`, which jsonb cannot hold.
    NulEscape = Decode, "nul_escape";
    /// Contains half of a UTF-16 surrogate pair, which jsonb cannot hold.
    LoneSurrogate = Decode, "lone_surrogate";
    /// Nested deeper than the limit.
    TooDeep = Decode, "too_deep";
    /// Contains a number with an absurd exponent or number of digits.
    NumberOutOfRange = Decode, "number_out_of_range";
    /// Neither `event` nor `type`.
    MissingEventType = Envelope, "missing_event_type";
    /// Neither `timestamp` nor `originalTimestamp`.
    MissingEventTime = Envelope, "missing_event_time";
    /// Its time is none, or says no offset from UTC.
    InvalidEventTime = Envelope, "invalid_event_time";
    /// Its time lies before the earliest that is accepted.
    EventTimeTooOld = Envelope, "event_time_too_old";
    /// Its time lies too far after its receipt.
    EventTimeInFuture = Envelope, "event_time_in_future";
    /// A field of the envelope has a type that its column cannot take.
    InvalidField = Envelope, "invalid_field";
    /// Its id must be a UUIDv7 and is not.
    NotUuidv7 = Envelope, "not_uuidv7";
    /// Received later than allowed, and the policy is to refuse such events.
    TooLate = Envelope, "too_late";
    /// Another event with the same id and date was there first, and this one says something else.
    DuplicateIdConflict = Envelope, "duplicate_id_conflict";
    /// It has no partition, and too many were made within the hour.
    TooManyNewDates = Partition, "too_many_new_dates";
    /// The partition of its date was retired.
    PartitionRetired = Partition, "partition_retired";
    /// The partition of its date cannot be made or takes no rows.
    PartitionSealed = Partition, "partition_sealed";
    /// Postgres refused the row.
    RefusedByDatabase = Database, "refused_by_database";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason and its explanation in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The fixed word.
    pub reason: Reason,
    /// The explanation; never quotes the event, whose bytes are kept apart.
    pub detail: String,
    /// The error code where Postgres refused it.
    pub sqlstate: Option<String>,
}

impl Rejection {
    /// A rejection found by the loader itself.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Rejection { reason, detail: detail.into(), sqlstate: None }
    }
}
