//! Whom to poll when, and from where: the lanes of one platform.
//!
//! | lane | asks for | when |
//! |---|---|---|
//! | [`live`] | everything behind each entity's watermark | every poll interval |
//! | ring ([`back_fill`]) | what is missing inside the hour that the source keeps | when there are gaps |
//! | roll-up ([`back_fill`]) | 300-second roll-ups of what is missing for longer | when there are older gaps |
//!
//! Owns: the schedule, the windows, the live set, the size of requests, and splitting a request down to the entity
//! that the server refuses. Never does: storing; it hands windows to `ingest` and waits for their fate.
//!
//! Tasks: one loop per lane and platform. The lanes that fill gaps have a place of their own in the request limiter's
//! queue, one request at a time in small batches, and never delay a live poll.

pub mod ask;
pub mod back_fill;
pub mod batch_size;
pub mod live;
pub mod live_set;
pub mod placement;
pub mod window;
