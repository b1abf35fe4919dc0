//! A device below redb that forgets, tears and fills up where a test says so.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// One change of the device.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Bytes { at: usize, data: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Bytes { at, data } => {
                if image.len() < at + data.len() {
                    image.resize(at + data.len(), 0);
                }
                image[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Length(length) => image.resize(*length, 0),
        }
    }
}

/// How the device goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// The operation of this number, counted from 0 among writes, changes of length and syncs, fails, and all after it.
    From(usize),
    /// The next sync fails, and nothing after it does.
    Sync,
    /// It cannot grow.
    Full,
}

#[derive(Debug, Default)]
struct State {
    synced: Vec<u8>,
    now: Vec<u8>,
    trouble: Trouble,
    operations: usize,
    /// Changes of each span between two syncs since [`Device::record`].
    spans: Vec<Vec<Change>>,
}

/// Clones are the same device.
#[derive(Clone, Debug, Default)]
pub(super) struct Device(Arc<Mutex<State>>);

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// One that holds this.
    pub(super) fn holding(image: Vec<u8>) -> Self {
        let state = State { synced: image.clone(), now: image, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What survives a power cut for certain.
    pub(super) fn synced(&self) -> Vec<u8> {
        self.state().synced.clone()
    }

    /// What a reader sees.
    pub(super) fn now(&self) -> Vec<u8> {
        self.state().now.clone()
    }

    pub(super) fn trouble(&self, trouble: Trouble) {
        let mut state = self.state();
        state.trouble = trouble;
        state.operations = 0;
    }

    /// Makes a change, and keeps it.
    pub(super) fn put(&self, change: &Change) {
        let mut state = self.state();
        change.apply(&mut state.now);
        state.synced = state.now.clone();
    }

    /// Forgets what was recorded, and records from here on.
    pub(super) fn record(&self) {
        self.state().spans = vec![Vec::new()];
    }

    /// What was changed since [`Device::record`], a list for each span between two syncs; what was never synced is the last.
    pub(super) fn recorded(&self) -> Vec<Vec<Change>> {
        self.state().spans.clone()
    }

    fn operate(&self, sync: bool, grows: bool) -> Result<MutexGuard<'_, State>, io::Error> {
        let mut state = self.state();
        let number = state.operations;
        state.operations += 1;
        let fails = match state.trouble {
            Trouble::None => false,
            Trouble::From(first) => number >= first,
            Trouble::Sync => sync,
            Trouble::Full => grows,
        };
        if fails {
            if state.trouble == Trouble::Sync {
                state.trouble = Trouble::None;
            }
            // ENOSPC, or for a sync EIO.
            return Err(io::Error::from_raw_os_error(if sync { 5 } else { 28 }));
        }
        Ok(state)
    }

    fn change(&self, change: Change, grows: bool) -> Result<(), io::Error> {
        let mut state = self.operate(false, grows)?;
        change.apply(&mut state.now);
        if let Some(span) = state.spans.last_mut() {
            span.push(change);
        }
        Ok(())
    }
}

/// Shows every image that a power cut can leave within one span: all changes before one, and that one up to every byte if it is short (as the header
/// is, which decides what counts), and to every `step`th of a page.
pub(super) fn torn(base: &[u8], span: &[Change], step: usize, mut show: impl FnMut(&[u8])) {
    let mut image = base.to_vec();
    show(&image);
    for change in span {
        if let Change::Bytes { at, data } = change {
            for (offset, byte) in data.iter().enumerate() {
                let place = at + offset;
                if image.len() <= place {
                    image.resize(place + 1, 0);
                }
                // A byte that was there already makes no new image.
                let new = image[place] != *byte;
                image[place] = *byte;
                if new && (data.len() <= 512 || offset % step == 0) {
                    show(&image);
                }
            }
        }
        change.apply(&mut image);
        show(&image);
    }
}

/// Shows every image in which the device wrote all of a span but one change, as it may where nothing orders them.
pub(super) fn one_lost(base: &[u8], span: &[Change], mut show: impl FnMut(&[u8])) {
    for lost in 0..span.len() {
        let mut image = base.to_vec();
        let kept = span.iter().enumerate().filter(|(number, _)| *number != lost);
        kept.for_each(|(_, change)| change.apply(&mut image));
        show(&image);
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("a test's device fits into memory")
}

impl StorageBackend for Device {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.state();
        let at = position(offset);
        let found = state.now.get(at..at + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let length = position(len);
        let grows = length > self.state().now.len();
        self.change(Change::Length(length), grows)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.operate(true, false)?;
        state.synced = state.now.clone();
        if !state.spans.is_empty() {
            state.spans.push(Vec::new());
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = position(offset);
        self.change(Change::Bytes { at, data: data.to_vec() }, false)
    }
}
