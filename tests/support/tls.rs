//! Certificates for private servers, made by `openssl` for the test that asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// One who signs certificates. Its files go when it is dropped.
pub struct Authority {
    directory: TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        request(directory.path(), "ca", "authority", &["-x509", "-days", "2", "-out", "ca.crt"]);
        Self { directory }
    }

    /// For `database.ca_file`.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// A certificate for a host name or, as `127.0.0.1`, an address.
    pub fn issue(&self, host: &str) -> Issued {
        let directory = self.directory.path();
        let file = |extension: &str| directory.join(format!("{host}.{extension}"));
        request(directory, host, host, &["-out", &format!("{host}.csr")]);
        let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
        fs::write(file("ext"), format!("subjectAltName = {kind}:{host}\nbasicConstraints = CA:FALSE\n")).unwrap();
        let names = [format!("{host}.csr"), format!("{host}.crt"), format!("{host}.ext")];
        let [csr, crt, ext] = names.each_ref().map(String::as_str);
        let signing = ["x509", "-req", "-in", csr, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        openssl(directory, &[&signing[..], &["-extfile", ext, "-out", crt]].concat());
        Issued { certificate: file("crt"), key: file("key") }
    }
}

fn request(directory: &Path, file: &str, name: &str, further: &[&str]) {
    let (key, subject) = (format!("{file}.key"), format!("/CN={name}"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key];
    openssl(directory, &[&["req", "-new", "-subj", &subject], &new_key[..], further].concat());
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").current_dir(directory).args(arguments).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
