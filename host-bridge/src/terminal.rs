//! Our own terminal: its size, and raw mode that is always undone.
//!
//! Undone when the guard goes, when the program panics (a hook, since a release build aborts), and on
//! every signal that can be caught, because those end the command loop and so drop the guard. SIGKILL
//! cannot be caught; `stty sane` is what is left then.

use std::sync::{Mutex, Once, PoisonError};

use agent_protocol::TerminalSize;
use rustix::{
    stdio::stdin,
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::{Error, Result, error::Context};

/// What a terminal that does not tell its size is taken for.
const ORDINARY: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};

pub fn stdin_is_terminal() -> bool {
    isatty(stdin())
}

pub fn require() -> Result<()> {
    if stdin_is_terminal() {
        return Ok(());
    }
    Err(Error::Usage {
        what: "-t needs a terminal on standard input, which this is not".to_owned(),
        hint: "leave -t away, and use -i to send input".to_owned(),
    })
}

pub fn size() -> TerminalSize {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        _ => ORDINARY,
    }
}

/// What the terminal was before; there is one standard input and so one of these.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal is raw while this lives.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    pub fn enter() -> Result<Self> {
        let act = "terminal cannot be set to raw mode";
        let before = tcgetattr(stdin()).act(act)?;
        restore_on_panic();
        let mut raw = before.clone();
        raw.make_raw();
        *saved() = Some(before);
        let guard = Raw(());
        tcsetattr(stdin(), OptionalActions::Drain, &raw).act(act)?;
        Ok(guard)
    }

    /// Once more, after somebody else had the terminal while we were stopped.
    pub fn enter_again(&self) {
        if let Ok(mut now) = tcgetattr(stdin()) {
            now.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &now);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = saved().take() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

fn saved() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
}
