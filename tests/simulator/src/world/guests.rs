//! Guests: what they were told to do, and when they do it.
//!
//! Owns: the agenda of all guests.

use super::operations::Operation;
use super::tasks::Plan;
use super::{PowerState, State};

/// What a guest will do at a time of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appointment {
    pub(super) at: i64,
    vm: usize,
    what: GuestDoes,
}

#[derive(Clone, Copy, Debug)]
enum GuestDoes {
    /// Its place in the log of operations.
    ShutDown(usize),
    /// Its place in the log of operations, and how long it is away.
    Reboot(usize, i64),
    ComeUp,
}

impl State {
    /// Tells a guest to shut down or reboot, which it does as planned.
    pub(super) fn tell_guest(&mut self, vm: usize, record: usize, to: &Operation, plan: &Plan, horizon: i64) {
        let Some(after) = plan.guest_after else {
            return;
        };
        let what = match to {
            Operation::RebootGuest => GuestDoes::Reboot(record, plan.guest_away),
            _ => GuestDoes::ShutDown(record),
        };
        let at = horizon.saturating_add(after);
        self.agenda.push(Appointment { at, vm, what });
    }

    /// A guest starts: it knows nothing of what it was told before, and its tools are away until it is up.
    pub(super) fn boot_guest(&mut self, vm: usize, at: i64, away: i64) {
        self.agenda.retain(|one| one.vm != vm);
        if let Some((details, _)) = self.vm_mut(vm) {
            details.guest_up = away == 0;
        }
        if away > 0 {
            let at = at.saturating_add(away);
            let what = GuestDoes::ComeUp;
            self.agenda.push(Appointment { at, vm, what });
        }
    }

    /// Does what is due. A guest that has gone down by now, or with its VM, does nothing any more.
    pub(super) fn keep_appointment(&mut self, place: usize, time: i64) {
        let Appointment { at, vm, what } = self.agenda.swap_remove(place);
        let running = self.vm(vm).is_some_and(|vm| vm.power == PowerState::PoweredOn);
        let done = match what {
            GuestDoes::ComeUp => {
                if let Some((details, _)) = self.vm_mut(vm) {
                    details.guest_up = true;
                }
                None
            }
            GuestDoes::ShutDown(record) if running => {
                let moref = self.moref(vm);
                let down = self.power(&moref, PowerState::PoweredOff, at);
                down.is_ok().then_some(record)
            }
            GuestDoes::Reboot(record, away) if running => {
                self.boot_guest(vm, at, away);
                Some(record)
            }
            GuestDoes::ShutDown(_) | GuestDoes::Reboot(..) => None,
        };
        if let Some(record) = done.and_then(|record| self.tasks.log.get_mut(record)) {
            record.effect_at = Some(time);
        }
    }
}
