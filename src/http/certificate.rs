//! The certificate that the server shows, read from two files and read again when they change. A new pair that cannot be used
//! changes nothing: the old one is shown on, and the log says why. It knows no connections.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::HttpSettings;
use crate::error::{Error, Result};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A certificate and its key. Clones share them.
#[derive(Clone)]
pub(super) struct Certificate(Arc<Shared>);

struct Shared {
    files: Files,
    /// Read at each handshake, written when the files have changed; never held across an await.
    current: RwLock<Arc<CertifiedKey>>,
}

/// Where a certificate and its key are.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
}

impl Certificate {
    /// The one that the settings name; `None` if they name none.
    pub(super) fn open(settings: &HttpSettings) -> Result<Option<Self>> {
        let files = Files { certificate: settings.tls_certificate.clone(), key: settings.tls_key.clone() };
        match (is_set(&files.certificate), is_set(&files.key)) {
            (false, false) => return Ok(None),
            (true, true) => {}
            (false, true) => return Err(invalid("http.tls_certificate is needed beside http.tls_key.".to_owned())),
            (true, false) => return Err(invalid("http.tls_key is needed beside http.tls_certificate.".to_owned())),
        }
        let current = RwLock::new(files.parse(&files.read())?);
        Ok(Some(Self(Arc::new(Shared { files, current }))))
    }

    /// How connections are taken with it.
    pub(super) fn config(&self) -> Result<ServerConfig> {
        // Named, and not the process's default: see `tls`.
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(Error::internal)?;
        Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(self.clone())))
    }

    /// Shows what the files hold, until the task is aborted. Two files are not replaced at one moment: what is there must have been
    /// there a while before anything is made of it.
    pub(super) async fn follow(self) {
        let mut used = self.0.files.read_elsewhere(Arc::clone(&self.0)).await;
        let mut seen: Option<Contents> = None;
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let Some(found) = self.0.files.read_elsewhere(Arc::clone(&self.0)).await else { continue };
            if used.as_ref() == Some(&found) {
                seen = None;
            } else if seen.as_ref() == Some(&found) {
                self.replace(&found);
                (used, seen) = (Some(found), None);
            } else {
                seen = Some(found);
            }
        }
    }

    fn replace(&self, found: &Contents) {
        match self.0.files.parse(found) {
            Ok(new) => {
                *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                tracing::info!("the certificate has been replaced (http.tls_certificate)");
            }
            Err(error) => tracing::warn!(%error, "the new certificate cannot be used; the old one is shown on"),
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificate").field("file", &self.0.files.certificate).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Files {
    fn read(&self) -> Contents {
        let read = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
        Contents { certificate: read(&self.certificate), key: read(&self.key) }
    }

    /// The same on a thread that may wait for a disk.
    async fn read_elsewhere(&self, shared: Arc<Shared>) -> Option<Contents> {
        tokio::task::spawn_blocking(move || shared.files.read()).await.ok()
    }

    fn parse(&self, contents: &Contents) -> Result<Arc<CertifiedKey>> {
        let of_certificate =
            |reason: String| invalid(format!("The file {} (http.tls_certificate) {reason}.", self.certificate.display()));
        let of_key = |reason: String| invalid(format!("The file {} (http.tls_key) {reason}.", self.key.display()));
        let text = contents.certificate.as_ref().map_err(|error| of_certificate(format!("cannot be read: {error}")))?;
        let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| of_certificate(format!("is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(of_certificate("has no certificate".to_owned()));
        }
        let text = contents.key.as_ref().map_err(|error| of_key(format!("cannot be read: {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| of_key(format!("has no private key: {error}")))?;
        let pair = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        pair.map(Arc::new).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => of_key("is not the key of the certificate in http.tls_certificate".to_owned()),
            // The enum is open to more.
            other => of_key(format!("cannot be used with the certificate in http.tls_certificate: {other}")),
        })
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn invalid(detail: String) -> Error {
    Error::bad_request("invalid_setting", detail)
}
