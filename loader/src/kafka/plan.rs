//! What a session is told to do, and how it can end.

use std::sync::{Arc, Mutex};

use super::link::Link;
use super::topics::Topics;
use super::{End, Kafka};
use crate::batch::BatchLimits;
use crate::error::Error;
use crate::operations::state::Shared;

/// What to do when Kafka no longer has the log that our position is in: see `change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDataLoss {
    /// Stop with an error
    Fail,
    /// Go on at the oldest record that was not loaded and note the gap in loader.offset_gaps
    Earliest,
    /// Go on behind the newest record and note the gap in loader.offset_gaps
    Latest,
}

/// What a session needs to know.
pub struct Settings {
    /// Where Kafka is.
    pub kafka: Kafka,
    /// Consumer group.
    pub group: String,
    /// Topics to read.
    pub topics: Topics,
    /// Where Postgres is.
    pub postgres: crate::postgres::connection::Config,
    /// `loader.pipelines.pipeline_id`.
    pub pipeline_id: i32,
    /// Who we are.
    pub owner: String,
    /// How many lanes the partitions are spread over.
    pub lanes: usize,
    /// Batch sizes.
    pub limits: BatchLimits,
    /// Where to tell how things go; also says whether the pipeline is paused.
    pub state: Arc<Shared>,
    /// Whether connections of the owner before are ended that are stuck in a transaction.
    pub end_stuck_writers: bool,
    /// What to do when records at our position are gone.
    pub on_data_loss: OnDataLoss,
    /// What was said about Kafka being away, whichever session it was.
    pub link: Mutex<Link>,
    /// Stop once these ends are reached; `None` runs for ever.
    pub until: Option<Vec<End>>,
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// We were told to stop.
    Stopped,
    /// Everything up to the wanted ends is committed.
    CaughtUp,
    /// Something that joining the group anew cures.
    Restart(String),
    /// The pipeline is paused.
    Paused,
    /// A lane ended; it knows why.
    LaneEnded,
    /// Something that needs a person.
    Failed(Error),
}
