//! Where Postgres is: the connection string, what it says about TLS, and the password file.
#![no_main]

use std::os::unix::fs::PermissionsExt;

use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{Scratch, bounded, joined, parts, seeds};
use tidemark_loader::postgres::connection::describe;
use tidemark_loader::postgres::libpq::{Tls, find_password};

fn examples() -> Vec<Vec<u8>> {
    [
        (
            "postgresql://app:p%40ss@db.example:5432/shop?sslmode=verify-full&sslrootcert=%2Fca.pem",
            "db.example:5432:shop:app:x",
        ),
        ("host=/run/pg user=app dbname='my \\'shop' sslmode = require", "*:*:*:app:a:b\\\\c\n#x\n"),
        ("postgres:///shop?host=/tmp&application_name=x", "localhost:*:sh\\:op:*:y"),
    ]
    .map(|(url, passwords)| joined(&[url.as_bytes(), passwords.as_bytes()]))
    .to_vec()
}

fuzz_target!(init: seeds(examples()), |data: &[u8]| {
    let [url, passwords] = parts(data);
    let url = String::from_utf8_lossy(&url);
    let Ok((rest, tls)) = bounded(url.len(), 64, || Tls::split_from(&url)) else { return };
    let _ = tls.driver_mode();
    let (again, none) = Tls::split_from(&rest).expect("what is left is a connection string");
    assert_eq!((again, none), (rest.clone(), Tls::default()), "nothing about TLS is left");
    let Ok(config) = rest.parse() else { return };
    assert!(!describe(&config).is_empty());
    let file = Scratch::get();
    file.write(&passwords);
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).expect("the file is ours");
    let named = |name: &str| (name == "PGPASSFILE").then(|| file.path().display().to_string());
    if let Ok(Some((password, from))) = find_password(&config, named) {
        assert!(!password.is_empty());
        assert_eq!(file.path().as_os_str(), from.as_str());
    }
});
