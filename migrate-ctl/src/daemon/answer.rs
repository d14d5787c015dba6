//! What the controller's task does when somebody asks on the control socket.

use std::sync::Arc;

use super::Controller;
use crate::config::{Mode, PolicyConfig};
use crate::control::Ask;
use crate::explain::{Explanation, Known, explain};
use crate::journal::Settings;
use crate::procfs::Process;
use crate::sys;

impl Controller {
    pub(super) fn answer(&mut self, ask: Ask) {
        // Whoever asked may have gone away meanwhile.
        match ask {
            Ask::Explain(process, reply) => {
                let _ = reply.send(self.explain(&process));
            }
            Ask::Mode(mode, reply) => {
                self.set_mode(mode);
                let _ = reply.send(());
            }
        }
    }

    fn explain(&self, process: &Process) -> Explanation {
        let known = Known {
            last: self.last.as_ref(),
            earlier: &self.earlier,
            mode: self.options.mode,
            config: &self.options.config,
            watched_seconds: None,
            controller: std::process::id(),
        };
        explain(&known, process)
    }

    /// An operator's switch. The call that runs ends; what waits behind it is cancelled.
    fn set_mode(&mut self, mode: Mode) {
        if mode == self.options.mode {
            return;
        }
        self.options.mode = mode;
        self.options.config.policy = settings(mode, &self.enforcing);
        if let Some(journal) = &mut self.journal {
            let settings = Settings::new(mode.name(), &self.options.config);
            journal.change(sys::boottime(), settings);
        }
        match (&self.mover, mode) {
            (Some(mover), Mode::Observe) => mover.forbid(),
            (Some(mover), Mode::Enforce) => mover.allow(),
            (None, _) => {}
        }
        self.published.send_modify(|snapshot| {
            if let Some(snapshot) = snapshot {
                Arc::make_mut(snapshot).mode = mode.name();
            }
        });
    }
}

/// The constants of the decision in this mode.
pub(super) fn settings(mode: Mode, enforcing: &PolicyConfig) -> PolicyConfig {
    match mode {
        Mode::Enforce => enforcing.clone(),
        Mode::Observe => enforcing.observing(),
    }
}
