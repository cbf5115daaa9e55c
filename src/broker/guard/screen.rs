//! Frames as they come, whatever pieces they come in.
//!
//! ```text
//!   Head ──▶ Hold (method, content header: whole, then looked at) ──▶ Give ──▶ Head
//!     │                                                                 ▲
//!     └────▶ Pass (body, heartbeat: as it comes) ◀──────────────────────┘ its head first
//! ```
//!
//! Holds at most one frame, and that is at most as large as was agreed on.

use super::FRAME_MIN;
use super::greeting::{Greeting, START};
use super::mend;
use super::methods::{self, Mended};
use super::scan::{self, Flaw, Sound, What};

/// Type, channel and size in front of a frame's payload.
const HEAD: usize = 7;
const FRAME_END: u8 = 206;
pub(super) const MIN_FRAME: usize = FRAME_MIN as usize;
/// A frame that was larger than this leaves no memory behind.
const KEPT: usize = 16 * 1024;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Bytes that are no AMQP frames: nothing can be found behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A frame type that is none.
    #[error("the broker sends what is no AMQP frame")]
    Type,
    /// More than was agreed on.
    #[error("the broker sends a frame that is larger than agreed")]
    Size,
    /// The last byte is not the one that ends a frame.
    #[error("the broker sends a frame without its end")]
    End,
}

/// What was done to a frame, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// A content header was replaced.
    Replaced(String),
    /// A method was left out: class and method number.
    LeftOut(u16, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Collecting the head of a frame.
    Head,
    /// Collecting a frame of this length as a whole.
    Hold { length: usize },
    /// Giving what is held, from here on.
    Give { at: usize },
    /// Handing on this many bytes, the frame's end behind them or (`ends` false) not.
    Pass { left: usize, ends: bool },
    /// Leaving out this many bytes.
    Skip { left: usize },
}

/// What else says whether the library can read a frame.
pub(super) type SecondLook = fn(&[u8]) -> bool;

/// Looks at frames and makes them readable.
#[derive(Debug)]
pub(super) struct Screen {
    state: State,
    /// The head of a frame, or all of it.
    frame: Vec<u8>,
    /// What follows when it is given.
    after: State,
    /// Largest frame that is agreed to.
    ceiling: usize,
    /// Largest frame that was agreed on.
    limit: usize,
    /// Channels whose content is left out, as its method was.
    muted: Vec<u16>,
    spare: Vec<u8>,
    /// What the broker said of itself at the begin, until somebody takes it.
    greeting: Option<Greeting>,
    check: fn(&[u8]) -> Result<Sound, Flaw>,
    second_look: SecondLook,
    finding: Option<Finding>,
}

impl Screen {
    /// At the begin of a connection on which no frame is larger than `ceiling` (at least 8,192).
    pub(super) fn new(ceiling: usize, second_look: SecondLook) -> Self {
        let ceiling = ceiling.max(MIN_FRAME);
        Self {
            state: State::Head,
            frame: Vec::with_capacity(MIN_FRAME),
            after: State::Head,
            ceiling,
            limit: ceiling,
            muted: Vec::new(),
            spare: Vec::new(),
            greeting: None,
            check: scan::content_header,
            second_look,
            finding: None,
        }
    }

    /// The same without its own check of content headers: only the second look is left.
    #[cfg(any(test, feature = "failpoints"))]
    pub(super) fn blind(mut self) -> Self {
        self.check = |_| Ok(Sound::default());
        self
    }

    /// Takes from `input` and gives to `output`: how many bytes of each. It stops where `input` is
    /// used up, `output` is full, or something was found.
    ///
    /// # Errors
    /// [`BadFrame`]; nothing more can be taken then.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<(usize, usize), BadFrame> {
        let (mut taken, mut given) = (0, 0);
        while self.finding.is_none() {
            let (from, to) = (&input[taken..], &mut output[given..]);
            let (took, gave) = match self.state {
                State::Head => self.collect(HEAD, from)?,
                State::Hold { length } => self.collect(length, from)?,
                State::Give { at } => (0, self.give(at, to)),
                State::Pass { left, ends } => self.pass(left, ends, from, to)?,
                State::Skip { left } => (self.skip(left, from), 0),
            };
            if took == 0 && gave == 0 {
                break;
            }
            taken += took;
            given += gave;
        }
        Ok((taken, given))
    }

    /// What was found since the last call.
    pub(super) fn finding(&mut self) -> Option<Finding> {
        self.finding.take()
    }

    /// What the broker said of itself, once.
    pub(super) fn greeting(&mut self) -> Option<Greeting> {
        self.greeting.take()
    }

    /// Bytes held, for tests of the bound.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.frame.capacity() + self.spare.capacity()
    }

    fn collect(&mut self, length: usize, from: &[u8]) -> Result<(usize, usize), BadFrame> {
        let count = from.len().min(length - self.frame.len());
        self.frame.extend_from_slice(&from[..count]);
        if self.frame.len() == length {
            match self.state {
                State::Head => self.begin()?,
                _ => self.look()?,
            }
        }
        Ok((count, 0))
    }

    /// The head of a frame is there.
    fn begin(&mut self) -> Result<(), BadFrame> {
        if self.frame.starts_with(b"AMQP\0") {
            // The answer to a version that the broker does not speak; one more byte.
            let (left, ends) = (1, false);
            self.give_then(State::Pass { left, ends });
            return Ok(());
        }
        let kind = self.frame[0];
        if ![METHOD, HEADER, BODY, HEARTBEAT].contains(&kind) {
            return Err(BadFrame::Type);
        }
        let size = scan::number(&self.frame, 3, 4).unwrap_or(usize::MAX);
        let length = size.saturating_add(HEAD + 1);
        if length > self.limit {
            return Err(BadFrame::Size);
        }
        let channel = self.channel();
        match kind {
            METHOD | HEADER => self.state = State::Hold { length },
            BODY if self.muted.contains(&channel) => {
                self.frame.clear();
                self.state = State::Skip { left: size + 1 };
            }
            _ => {
                let (left, ends) = (size + 1, true);
                self.give_then(State::Pass { left, ends });
            }
        }
        Ok(())
    }

    fn channel(&self) -> u16 {
        u16::from_be_bytes([self.frame[1], self.frame[2]])
    }

    /// A whole frame is there.
    fn look(&mut self) -> Result<(), BadFrame> {
        if self.frame.pop() != Some(FRAME_END) {
            return Err(BadFrame::End);
        }
        let given = match self.frame[0] {
            METHOD => self.method(),
            _ => self.header(),
        };
        if given {
            self.seal();
            self.give_then(State::Head);
        } else {
            self.emptied();
            self.state = State::Head;
        }
        Ok(())
    }

    /// Whether the method that is held goes on.
    fn method(&mut self) -> bool {
        let channel = self.channel();
        // Content that was left out ends here at the latest.
        self.muted.retain(|muted| *muted != channel);
        let mut payload = std::mem::take(&mut self.spare);
        payload.clear();
        payload.extend_from_slice(&self.frame[HEAD..]);
        let mended = methods::mend(&mut payload, self.ceiling);
        let number = |at| scan::number(&payload, at, 2).and_then(|n| u16::try_from(n).ok());
        let id = (number(0).unwrap_or(0), number(2).unwrap_or(0));
        let content = methods::carries_content(&payload);
        if let Mended::Tuned(agreed) = mended {
            self.limit = agreed.max(MIN_FRAME);
        }
        self.frame.truncate(HEAD);
        self.frame.append(&mut payload);
        self.spare = payload;
        if mended != Mended::Unreadable && self.second_look() {
            if id == START {
                self.seal();
                self.greeting = Greeting::read(&self.frame);
                self.frame.pop();
            }
            return true;
        }
        if content {
            self.muted.push(channel);
        }
        self.finding = Some(Finding::LeftOut(id.0, id.1));
        false
    }

    /// Whether the content header that is held goes on, as it is or in another form.
    fn header(&mut self) -> bool {
        let channel = self.channel();
        if self.muted.contains(&channel) {
            return false;
        }
        let flaw = match (self.check)(&self.frame[HEAD..]) {
            Ok(sound) => {
                if let Some(at) = sound.forged {
                    mend::disarm(&mut self.frame[HEAD..], at);
                }
                if self.second_look() {
                    return true;
                }
                Flaw {
                    what: What::Library,
                    property: "",
                    at: scan::FLAGS,
                }
            }
            Err(flaw) => flaw,
        };
        let mut out = std::mem::take(&mut self.spare);
        let limit = self.limit - HEAD - 1;
        mend::content_header(&self.frame[HEAD..], &flaw, limit, &mut out);
        if self.frame.len() < HEAD + scan::FLAGS {
            // Without a body size it is given none: what follows is left out.
            self.muted.push(channel);
        }
        self.frame.truncate(HEAD);
        self.frame.append(&mut out);
        self.spare = out;
        self.finding = Some(Finding::Replaced(flaw.words()));
        true
    }

    /// Whether the library can read the frame that is held, where it is not trusted.
    fn second_look(&mut self) -> bool {
        self.seal();
        let readable = (self.second_look)(&self.frame);
        self.frame.pop();
        readable
    }

    /// Writes size and end of the frame that is held.
    fn seal(&mut self) {
        // It fits: the frame is no larger than agreed.
        let size = u32::try_from(self.frame.len() - HEAD).unwrap_or(u32::MAX);
        self.frame[3..HEAD].copy_from_slice(&size.to_be_bytes());
        self.frame.push(FRAME_END);
    }

    fn give_then(&mut self, after: State) {
        self.after = after;
        self.state = State::Give { at: 0 };
    }

    fn give(&mut self, at: usize, to: &mut [u8]) -> usize {
        let rest = &self.frame[at..];
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&rest[..count]);
        self.state = State::Give { at: at + count };
        if at + count == self.frame.len() {
            self.emptied();
            self.state = self.after;
        }
        count
    }

    fn emptied(&mut self) {
        self.frame.clear();
        for kept in [&mut self.frame, &mut self.spare] {
            if kept.capacity() > KEPT {
                *kept = Vec::new();
            }
        }
    }

    fn pass(
        &mut self,
        left: usize,
        ends: bool,
        from: &[u8],
        to: &mut [u8],
    ) -> Result<(usize, usize), BadFrame> {
        let count = left.min(from.len()).min(to.len());
        if ends && count == left && from[left - 1] != FRAME_END {
            return Err(BadFrame::End);
        }
        to[..count].copy_from_slice(&from[..count]);
        let left = left - count;
        self.state = match left {
            0 => State::Head,
            left => State::Pass { left, ends },
        };
        Ok((count, count))
    }

    fn skip(&mut self, left: usize, from: &[u8]) -> usize {
        let count = left.min(from.len());
        self.state = match left - count {
            0 => State::Head,
            left => State::Skip { left },
        };
        count
    }
}
