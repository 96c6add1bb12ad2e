//! From decoded windows to committed rows: one queue, one chain and one flush per platform.
//!
//! Owns: the watermarks and the chain rule ([`chain`]), the bounded queue ([`queue`]), the flush loop ([`flush`]),
//! what is done when it fails ([`policy`]) or when a row is refused (`salvage`), the connections that rows are copied
//! through ([`writers`]), and the loop that rolls committed rows up ([`rollups`]). Never does: asking the source;
//! never resends from memory. On any doubt about a flush everything queued for the platform is thrown away, the
//! watermarks are read again, and the lanes ask the source again: it is the buffer.
//!
//! Tasks: one flush loop and one loop of roll-ups per platform. Queues: one per platform, [`queue::CAPACITY_BATCHES`]
//! batches whose bytes are inside the byte budget; a full queue makes the lane wait.

pub mod chain;
pub mod flush;
mod joined;
pub mod policy;
pub mod queue;
pub mod rollups;
mod salvage;
pub mod writers;
