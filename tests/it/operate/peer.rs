//! Actions against vcsim, the peer that we did not write.

use super::*;
