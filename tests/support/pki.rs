//! A certificate authority for one fleet: every agent and operator gets a certificate that names it.

use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    fleet: String,
}

/// Where a certificate, its key and its authority's certificate were written, as PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key, readable by the owner alone.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one with a new key.
    ///
    /// # Panics
    ///
    /// If the system has no randomness.
    #[must_use]
    pub fn new(fleet: &str) -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        let mut params = CertificateParams::new(Vec::new()).expect("no names cannot be wrong ones");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{fleet} certificate authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).expect("the authority's own key signs").pem();
        Self { issuer: Issuer::new(params, key), pem, fleet: fleet.to_owned() }
    }

    /// Gives a node a certificate for both sides of a connection.
    #[must_use]
    pub fn node(&self, directory: &Path, name: &str) -> Files {
        self.issue(directory, "node", name)
    }

    /// Gives an operator a certificate.
    #[must_use]
    pub fn operator(&self, directory: &Path, name: &str) -> Files {
        self.issue(directory, "operator", name)
    }

    fn issue(&self, directory: &Path, kind: &str, name: &str) -> Files {
        let key = KeyPair::generate().expect("a P-256 key needs only randomness");
        let mut params =
            CertificateParams::new(vec!["lvsmesh".to_owned()]).expect("a plain host name");
        let identity = format!("spiffe://{}/{kind}/{name}", self.fleet);
        params
            .subject_alt_names
            .push(SanType::URI(Ia5String::try_from(identity).expect("names are ASCII")));
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority's key signs");
        let write = |suffix: &str, text: &str| {
            let file = directory.join(format!("{name}{suffix}.pem"));
            std::fs::write(&file, text)
                .unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
            file
        };
        let files = Files {
            ca: write("-ca", &self.pem),
            cert: write("", &certificate.pem()),
            key: write("-key", &key.serialize_pem()),
        };
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&files.key, private).expect("the owner of a file sets its mode");
        files
    }
}
