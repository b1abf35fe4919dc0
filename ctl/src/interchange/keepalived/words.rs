//! Every word of keepalived's configuration, old and new, and what becomes of it.
//!
//! One table: the importer, `docs/import.md` and the tests read it. keepalived.conf(5) of 2.2.7 says what the words mean; words that only older
//! or only newer versions know are marked.

mod check;
mod global;
mod server;
mod vrrp;

use crate::interchange::report::Fate;

/// Where a word may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Context {
    Top,
    Global,
    StaticTrackGroup,
    TrackFile,
    Bfd,
    VrrpScript,
    TrackProcess,
    SyncGroup,
    GarpGroup,
    Vrrp,
    Authentication,
    AuthHmac,
    VirtualServer,
    RealServer,
    Tcp,
    Http,
    Url,
    Smtp,
    SmtpHost,
    Dns,
    Misc,
    BfdCheck,
    Ping,
    Udp,
    FileCheck,
    Ssl,
}

impl Context {
    /// All of them, in the order of the manual page.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 26] = [
        Self::Top,
        Self::Global,
        Self::StaticTrackGroup,
        Self::TrackFile,
        Self::Bfd,
        Self::VrrpScript,
        Self::TrackProcess,
        Self::SyncGroup,
        Self::GarpGroup,
        Self::Vrrp,
        Self::Authentication,
        Self::AuthHmac,
        Self::VirtualServer,
        Self::RealServer,
        Self::Tcp,
        Self::Http,
        Self::Url,
        Self::Smtp,
        Self::SmtpHost,
        Self::Dns,
        Self::Misc,
        Self::BfdCheck,
        Self::Ping,
        Self::Udp,
        Self::FileCheck,
        Self::Ssl,
    ];

    /// The words that may stand there, in groups that contexts share.
    pub(crate) const fn words(self) -> &'static [&'static [Word]] {
        match self {
            Self::Top => &[global::TOP],
            Self::Global => &[global::GLOBAL, global::PROCESS],
            Self::StaticTrackGroup => &[global::TRACK_GROUP],
            Self::TrackFile => &[global::TRACK_FILE],
            Self::Bfd => &[global::BFD],
            Self::VrrpScript => &[vrrp::SCRIPT],
            Self::TrackProcess => &[vrrp::TRACK_PROCESS],
            Self::SyncGroup => &[vrrp::SYNC_GROUP, vrrp::NOTIFY, vrrp::TRACK],
            Self::GarpGroup => &[vrrp::GARP_GROUP],
            Self::Vrrp => &[vrrp::INSTANCE, vrrp::NOTIFY, vrrp::TRACK],
            Self::Authentication => &[vrrp::AUTHENTICATION],
            Self::AuthHmac => &[vrrp::AUTH_HMAC],
            Self::VirtualServer => &[server::VIRTUAL, server::TIMING],
            Self::RealServer => &[server::REAL, server::TIMING],
            Self::Tcp => &[check::CONNECTION, check::TIMING, check::TCP],
            Self::Http => &[check::HTTP, check::FOREIGN],
            Self::Url => &[check::URL],
            Self::Smtp => &[check::SMTP, check::FOREIGN],
            Self::SmtpHost => &[check::FOREIGN],
            Self::Dns => &[check::DNS, check::FOREIGN],
            Self::Misc => &[check::MISC, check::FOREIGN],
            Self::BfdCheck => &[check::BFD],
            Self::Ping => &[check::FOREIGN],
            Self::Udp => &[check::UDP, check::FOREIGN],
            Self::FileCheck => &[check::FILE],
            Self::Ssl => &[check::SSL],
        }
    }

    /// How the manual page calls the place.
    #[cfg(test)]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Top => "top level",
            Self::Global => "global_defs",
            Self::StaticTrackGroup => "track_group",
            Self::TrackFile => "track_file",
            Self::Bfd => "bfd_instance",
            Self::VrrpScript => "vrrp_script",
            Self::TrackProcess => "vrrp_track_process",
            Self::SyncGroup => "vrrp_sync_group",
            Self::GarpGroup => "garp_group",
            Self::Vrrp => "vrrp_instance",
            Self::Authentication => "authentication",
            Self::AuthHmac => "auth_hmac",
            Self::VirtualServer => "virtual_server",
            Self::RealServer => "real_server",
            Self::Tcp => "TCP_CHECK",
            Self::Http => "HTTP_GET, SSL_GET",
            Self::Url => "url",
            Self::Smtp => "SMTP_CHECK",
            Self::SmtpHost => "host (of SMTP_CHECK)",
            Self::Dns => "DNS_CHECK",
            Self::Misc => "MISC_CHECK",
            Self::BfdCheck => "BFD_CHECK",
            Self::Ping => "PING_CHECK",
            Self::Udp => "UDP_CHECK",
            Self::FileCheck => "FILE_CHECK",
            Self::Ssl => "SSL",
        }
    }

    /// The word of that name there.
    pub(crate) fn word(self, name: &str) -> Option<&'static Word> {
        self.words().iter().copied().flatten().find(|word| word.name == name)
    }
}

/// Which keepalived knows a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// 2.2.7 does.
    Current,
    /// Only earlier ones did.
    Old,
    /// Only later ones do.
    Newer,
}

/// What a word's block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inner {
    /// It has none.
    Nothing,
    /// Words of that context.
    Words(Context),
    /// Names, addresses, routes: every line shares the word's fate.
    Lines,
}

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) name: &'static str,
    /// What becomes of it if its value allows.
    pub(crate) fate: Fate,
    /// For a word that is taken: its name in the document. For others: why, or what instead.
    pub(crate) note: &'static str,
    pub(crate) inner: Inner,
    pub(crate) age: Age,
}

impl Word {
    const fn new(name: &'static str, fate: Fate, note: &'static str) -> Self {
        Self { name, fate, note, inner: Inner::Nothing, age: Age::Current }
    }

    const fn holding(self, context: Context) -> Self {
        Self { inner: Inner::Words(context), ..self }
    }

    const fn listing(self) -> Self {
        Self { inner: Inner::Lines, ..self }
    }

    const fn old(self) -> Self {
        Self { age: Age::Old, ..self }
    }

    const fn newer(self) -> Self {
        Self { age: Age::Newer, ..self }
    }
}

const fn taken(name: &'static str, note: &'static str) -> Word {
    Word::new(name, Fate::Taken, note)
}

const fn changed(name: &'static str, note: &'static str) -> Word {
    Word::new(name, Fate::Changed, note)
}

const fn idle(name: &'static str, note: &'static str) -> Word {
    Word::new(name, Fate::Idle, note)
}

const fn not(name: &'static str, note: &'static str) -> Word {
    Word::new(name, Fate::Unsupported, note)
}

/// The page of the documentation that lists every word.
#[cfg(test)]
fn page() -> String {
    let mut page = String::from(PREFACE);
    for context in Context::ALL {
        page += &format!("\n### {}\n\n| word | fate | note |\n|---|---|---|\n", context.title());
        for word in context.words().iter().copied().flatten() {
            let age = match word.age {
                Age::Current => "",
                Age::Old => " (old)",
                Age::Newer => " (newer)",
            };
            let note = word.note.replace('|', "\\|");
            page += &format!("| `{}`{age} | {} | {note} |\n", word.name, word.fate.words());
        }
    }
    page
}

/// What stands before the lists. `docs/import.md` is made from this; a test compares them.
#[cfg(test)]
const PREFACE: &str = include_str!("words/preface.md");

#[cfg(test)]
mod tests;
