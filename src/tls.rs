//! The client's side of TLS: whom to trust, and what a certificate is refused for. It knows no server and no protocol;
//! settings are named by whoever asks.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore};

use crate::error::{Error, Result};

/// Trusts the authorities of a PEM file, or those of the system if the path is empty. `setting` is what names the file.
pub fn verifying(ca_file: &Path, setting: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if ca_file.as_os_str().is_empty() {
        // Certificates of the system that cannot be read are as good as not there.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let invalid = |reason: String| {
            let detail = format!("The file {} ({setting}) {reason}.", ca_file.display());
            Error::bad_request("invalid_setting", detail)
        };
        let file = File::open(ca_file).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
            let certificate = certificate.map_err(|error| invalid(format!("is not PEM: {error}")))?;
            roots.add(certificate).map_err(|error| invalid(format!("has a certificate that is none: {error}")))?;
        }
        if roots.is_empty() {
            return Err(invalid("has no certificate".to_owned()));
        }
    }
    // Named, and not the process's default: nobody has to install one, and a second one in the build changes nothing.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(Error::internal)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Why a certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It is for another host name.
    OtherName,
    /// It is not valid now.
    OutOfDate,
    /// Everything else, most of all an unknown issuer.
    UnknownIssuer,
}

impl Distrust {
    /// None if the handshake failed for another reason than the certificate.
    pub fn of(error: &TlsError) -> Option<Self> {
        let TlsError::InvalidCertificate(reason) = error else { return None };
        Some(match reason {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::OutOfDate,
            // The enum is open to more.
            _ => Self::UnknownIssuer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_names_the_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = verifying(file.path(), "redis.ca_file").map(drop).unwrap_err();
        assert!(error.detail().contains("redis.ca_file") && error.detail().contains("no certificate"), "{error}");
        let error = verifying(Path::new("nothing.pem"), "redis.ca_file").map(drop).unwrap_err();
        assert!(error.detail().contains("nothing.pem (redis.ca_file) cannot be read"), "{error}");
    }
}
