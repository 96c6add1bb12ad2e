//! Whom to poll when, and from where: the lanes of one platform.
//!
//! | lane | asks for | when |
//! |---|---|---|
//! | [`live`] | everything behind each entity's watermark | every poll interval |
//! | [`ring`] | what is missing inside the hour that the source keeps | when there are gaps |
//!
//! Owns: the schedule, the windows, the live set, the size of requests, and splitting a request down to the entity
//! that the server refuses. Never does: storing; it hands windows to `ingest` and waits for their fate.
//!
//! Tasks: one loop per lane and platform. The ring lane has its own place in the request limiter's queue and its
//! own small batches, and never delays a live poll.

pub mod ask;
pub mod batch_size;
pub mod live;
pub mod live_set;
pub mod placement;
pub mod ring;
pub mod window;
