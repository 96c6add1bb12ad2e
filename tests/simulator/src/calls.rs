//! What clients called.
//!
//! Owns: counters per method and the last thousand calls. Never influences an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Calls that are remembered one by one.
const REMEMBERED: usize = 1000;

/// Counters of one method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodCalls {
    /// Calls received.
    pub calls: u64,
    /// Calls answered with a fault, by its type.
    pub faults: BTreeMap<String, u64>,
    /// Calls being worked on.
    pub in_flight: u64,
    /// Most that were worked on at the same time.
    pub max_in_flight: u64,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Server time of arrival.
    pub at: i64,
    /// SOAP method.
    pub method: String,
    /// The `SOAPAction` header.
    pub soap_action: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// The `operationID` header element.
    pub operation_id: Option<String>,
    /// Objects named (for QueryPerf: entities).
    pub objects: usize,
}

/// A handle on the call log.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    methods: BTreeMap<String, MethodCalls>,
    recent: VecDeque<CallRecord>,
}

/// Ends a call's time in flight when dropped.
pub(crate) struct InFlight {
    calls: Calls,
    method: String,
}

impl Calls {
    /// Calls of one method so far.
    #[must_use]
    pub fn count(&self, method: &str) -> u64 {
        self.log().methods.get(method).map_or(0, |m| m.calls)
    }

    /// Counters of one method.
    #[must_use]
    pub fn method(&self, method: &str) -> MethodCalls {
        self.log().methods.get(method).cloned().unwrap_or_default()
    }

    /// Counters of all methods.
    #[must_use]
    pub fn methods(&self) -> BTreeMap<String, MethodCalls> {
        self.log().methods.clone()
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<CallRecord> {
        self.log().recent.iter().cloned().collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut log = self.log();
        log.recent.clear();
        log.methods.retain(|_, method| method.in_flight > 0);
        for method in log.methods.values_mut() {
            method.calls = 0;
            method.faults.clear();
            method.max_in_flight = method.in_flight;
        }
    }

    pub(crate) fn begin(&self, call: CallRecord) -> InFlight {
        let mut log = self.log();
        let counters = log.methods.entry(call.method.clone()).or_default();
        counters.calls += 1;
        counters.in_flight += 1;
        counters.max_in_flight = counters.max_in_flight.max(counters.in_flight);
        if log.recent.len() == REMEMBERED {
            log.recent.pop_front();
        }
        let method = call.method.clone();
        log.recent.push_back(call);
        InFlight {
            calls: self.clone(),
            method,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    pub(crate) fn fault(&self, kind: &str) {
        let mut log = self.calls.log();
        if let Some(method) = log.methods.get_mut(&self.method) {
            *method.faults.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut log = self.calls.log();
        if let Some(method) = log.methods.get_mut(&self.method) {
            method.in_flight = method.in_flight.saturating_sub(1);
        }
    }
}
