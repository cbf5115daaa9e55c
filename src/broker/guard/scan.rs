//! Whether the library can read a content header: sizes, UTF-8, field types, nesting.
//!
//! AMQP 0-9-1, section 4.2: a short string is bytes that should be UTF-8, a table nests without
//! bound. Brokers pass on what a client wrote; the library wants the first and recurses into the
//! second. Nothing here allocates or recurses.

/// Deepest nesting of tables and arrays, the header table itself included.
pub const MAX_DEPTH: usize = 32;
/// Where the flags of a content header stand in its payload, behind class, weight and body size.
pub(super) const FLAGS: usize = 12;
/// Where the properties begin.
pub(super) const PROPERTIES: usize = FLAGS + 2;
/// The header that marks a message whose properties could not all be read. Nobody but the guard
/// makes it: it is renamed where a client sends it.
pub const MARK: &str = "x-tandem-unreadable";

/// How a property is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Short,
    Octet,
    Long,
    Table,
}

/// The properties of class `basic`, in the order of their flags from the highest bit on.
pub(super) const BASIC: [(&str, Form); 14] = [
    ("content_type", Form::Short),
    ("content_encoding", Form::Short),
    ("headers", Form::Table),
    ("delivery_mode", Form::Octet),
    ("priority", Form::Octet),
    ("correlation_id", Form::Short),
    ("reply_to", Form::Short),
    ("expiration", Form::Short),
    ("message_id", Form::Short),
    ("timestamp", Form::Long),
    ("type", Form::Short),
    ("user_id", Form::Short),
    ("app_id", Form::Short),
    ("cluster_id", Form::Short),
];

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    NotUtf8,
    KeyNotUtf8,
    TooDeep,
    FieldType,
    Size,
    /// Our checks find nothing, and the library cannot read it all the same.
    Library,
}

/// Why a content header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) what: What,
    /// Which property.
    pub(super) property: &'static str,
    /// Where in the payload.
    pub(super) at: usize,
}

impl Flaw {
    /// For people; nothing of what the client wrote.
    pub(super) fn words(&self) -> String {
        let property = self.property;
        match self.what {
            What::NotUtf8 => format!("property {property} is not UTF-8"),
            What::KeyNotUtf8 => "the name of a header is not UTF-8".to_owned(),
            What::TooDeep => format!("tables in {property} nest deeper than {MAX_DEPTH} levels"),
            What::FieldType => format!("a field in {property} has a type that AMQP does not know"),
            What::Size => format!("the sizes within {property} do not fit each other"),
            What::Library => "the AMQP library cannot read the properties".to_owned(),
        }
    }
}

/// What is wrong, and where; the caller knows with what.
type Wrong = (What, usize);

/// `count` bytes from `at` on, as far as `bytes` has them.
pub(super) fn part(bytes: &[u8], at: usize, count: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(count)?)
}

/// A big-endian number of up to four bytes.
pub(super) fn number(bytes: &[u8], at: usize, count: usize) -> Option<usize> {
    let digits = part(bytes, at, count)?;
    Some(
        digits
            .iter()
            .fold(0, |n, digit| n << 8 | usize::from(*digit)),
    )
}

/// End of a property by its form and sizes alone; `None` where it reaches beyond `bytes`.
pub(super) fn end_of(bytes: &[u8], at: usize, form: Form) -> Option<usize> {
    let (head, count) = match form {
        Form::Short => (1, number(bytes, at, 1)?),
        Form::Octet => (0, 1),
        Form::Long => (0, 8),
        Form::Table => (4, number(bytes, at, 4)?),
    };
    part(bytes, at, head + count).map(|_| at + head + count)
}

/// An entry of a table as its sizes say, unchecked within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: usize,
    /// Where the type of its value stands; the key ends there.
    pub(super) value: usize,
    pub(super) end: usize,
}

impl Entry {
    /// The entry that begins at `at` in a table that ends at `end`.
    pub(super) fn at(bytes: &[u8], at: usize, end: usize) -> Result<Self, Wrong> {
        let bytes = bytes.get(..end).ok_or((What::Size, at))?;
        let value = end_of(bytes, at, Form::Short).ok_or((What::Size, at))?;
        let end = value_end(bytes, value)?;
        Ok(Self { at, value, end })
    }

    pub(super) fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.at + 1..self.value).unwrap_or_default()
    }

    /// Whether key and value can be read.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Wrong> {
        if std::str::from_utf8(self.key(bytes)).is_err() {
            return Err((What::KeyNotUtf8, self.at));
        }
        nested(bytes, self.value, self.end)
    }
}

/// End of the value whose type stands at `at`, by its sizes alone.
fn value_end(bytes: &[u8], at: usize) -> Result<usize, Wrong> {
    let size = |head: usize, count: Option<usize>| {
        let count = count.ok_or((What::Size, at))?;
        let whole = part(bytes, at + 1, head + count).ok_or((What::Size, at))?;
        Ok(at + 1 + whole.len())
    };
    match bytes.get(at).ok_or((What::Size, at))? {
        b'V' => size(0, Some(0)),
        b't' | b'b' | b'B' => size(0, Some(1)),
        b's' | b'u' | b'U' => size(0, Some(2)),
        b'I' | b'i' | b'f' => size(0, Some(4)),
        b'D' => size(0, Some(5)),
        b'L' | b'l' | b'd' | b'T' => size(0, Some(8)),
        b'S' | b'x' | b'A' | b'F' => size(4, number(bytes, at + 1, 4)),
        _ => Err((What::FieldType, at)),
    }
}

/// A table or array that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    end: usize,
    keys: bool,
}

/// Checks the value whose type stands at `at`, and all within it. It ends at `end` by its size.
fn nested(bytes: &[u8], at: usize, end: usize) -> Result<(), Wrong> {
    // One level is the header table itself.
    let mut levels = [Level::default(); MAX_DEPTH - 1];
    let mut depth = 0;
    let mut at = match opened(bytes, at) {
        None => return Ok(()),
        Some(keys) => {
            levels[depth] = Level { end, keys };
            depth += 1;
            at + 5
        }
    };
    while depth > 0 {
        let level = levels[depth - 1];
        if at == level.end {
            depth -= 1;
            continue;
        }
        let (value, end) = if level.keys {
            let entry = Entry::at(bytes, at, level.end)?;
            if std::str::from_utf8(entry.key(bytes)).is_err() {
                return Err((What::KeyNotUtf8, at));
            }
            (entry.value, entry.end)
        } else {
            let within = bytes.get(..level.end).ok_or((What::Size, at))?;
            (at, value_end(within, at)?)
        };
        match opened(bytes, value) {
            None => at = end,
            Some(keys) => {
                *levels.get_mut(depth).ok_or((What::TooDeep, value))? = Level { end, keys };
                depth += 1;
                at = value + 5;
            }
        }
    }
    Ok(())
}

/// Whether the value at `at` is a table (with keys) or an array (without); `None`: neither.
fn opened(bytes: &[u8], at: usize) -> Option<bool> {
    match bytes.get(at) {
        Some(b'F') => Some(true),
        Some(b'A') => Some(false),
        _ => None,
    }
}

/// Calls `each` with every entry of the table at `at` that its sizes lead to, until one is wrong.
pub(super) fn entries(
    bytes: &[u8],
    at: usize,
    mut each: impl FnMut(&Entry) -> Result<(), Wrong>,
) -> Result<(), Wrong> {
    let end = end_of(bytes, at, Form::Table).ok_or((What::Size, at))?;
    let mut at = at + 4;
    while at < end {
        let entry = Entry::at(bytes, at, end)?;
        each(&entry)?;
        at = entry.end;
    }
    Ok(())
}

/// Checks a table that is not nested in anything.
pub(super) fn table(bytes: &[u8], at: usize) -> Result<(), Wrong> {
    entries(bytes, at, |entry| entry.check(bytes))
}

/// A content header that can be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// Where the header table begins, where one of its keys is [`MARK`].
    pub(super) forged: Option<usize>,
}

/// Checks the payload of a content header frame.
pub(super) fn content_header(payload: &[u8]) -> Result<Sound, Flaw> {
    let flaw = |property| move |(what, at)| Flaw { what, property, at };
    let short = flaw("the content header")((What::Size, FLAGS));
    let flags = number(payload, FLAGS, 2).ok_or(short)?;
    let mut at = PROPERTIES;
    let mut sound = Sound::default();
    for (property, form) in present(flags) {
        let end = end_of(payload, at, form).ok_or((What::Size, at));
        let end = end.map_err(flaw(property))?;
        match form {
            Form::Short if std::str::from_utf8(&payload[at + 1..end]).is_err() => {
                return Err(flaw(property)((What::NotUtf8, at)));
            }
            Form::Table => {
                let checked = entries(payload, at, |entry| {
                    if entry.key(payload) == MARK.as_bytes() {
                        sound.forged = Some(at);
                    }
                    entry.check(payload)
                });
                checked.map_err(flaw(property))?;
            }
            Form::Short | Form::Octet | Form::Long => {}
        }
        at = end;
    }
    if at == payload.len() {
        Ok(sound)
    } else {
        Err(flaw("the content header")((What::Size, at)))
    }
}

/// The properties that the flags announce. What the library does not know of them it passes over.
pub(super) fn present(flags: usize) -> impl Iterator<Item = (&'static str, Form)> {
    let all = BASIC.into_iter().enumerate();
    all.filter(move |(bit, _)| flags & (1 << (15 - bit)) != 0)
        .map(|(_, property)| property)
}
