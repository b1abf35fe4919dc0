//! Takes keys out of a TOML table and notes every fault on the way.

use super::Fault;

/// One table of the file. Keys that nobody took are faults.
pub(super) struct Section<'a> {
    prefix: String,
    table: toml::Table,
    taken: Vec<&'static str>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: toml::Table, faults: &'a mut Vec<Fault>) -> Self {
        Self { prefix: String::new(), table, taken: Vec::new(), faults }
    }

    /// The table under `key`; an empty one if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'_> {
        let prefix = format!("{}{key}.", self.prefix);
        let table = self.optional(key, table).unwrap_or_default();
        Section { prefix, table, taken: Vec::new(), faults: self.faults }
    }

    /// The table under `key`, if there is one.
    pub(super) fn subsection(&mut self, key: &'static str) -> Option<Section<'_>> {
        let prefix = format!("{}{key}.", self.prefix);
        let table = self.optional(key, table)?;
        Some(Section { prefix, table, taken: Vec::new(), faults: self.faults })
    }

    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        decode: impl FnOnce(toml::Value) -> Result<T, String>,
    ) -> Option<T> {
        self.taken.push(key);
        let value = self.table.remove(key)?;
        decode(value).map_err(|message| self.fault(key, message)).ok()
    }

    /// The value, or the default where the key is absent; `None` after a fault.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: &str,
        decode: impl FnOnce(toml::Value) -> Result<T, String>,
    ) -> Option<T> {
        self.taken.push(key);
        let value = self.table.remove(key).unwrap_or_else(|| default.into());
        decode(value).map_err(|message| self.fault(key, message)).ok()
    }

    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        decode: impl FnOnce(toml::Value) -> Result<T, String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.taken.push(key);
            self.fault(key, "is missing".to_owned());
            return None;
        }
        self.optional(key, decode)
    }

    /// Notes a fault for every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.taken.join(", ");
        for key in self.table.keys() {
            self.faults.push(Fault {
                key: format!("{}{key}", self.prefix),
                message: format!("no such key; there are {known}"),
            });
        }
    }

    /// How many faults were noted, here and elsewhere.
    pub(super) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// Notes that the value of `key` cannot be.
    pub(super) fn fault(&mut self, key: &str, message: String) {
        self.faults.push(Fault { key: format!("{}{key}", self.prefix), message });
    }
}

fn table(value: toml::Value) -> Result<toml::Table, String> {
    let found = value.type_str();
    value.try_into().map_err(|_| format!("expected a table, found {found}"))
}
