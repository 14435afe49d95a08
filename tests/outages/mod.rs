//! The bad days of a database server, each with a real server of its own that is stopped, starved or broken. They run
//! whatever database the other tests are about, and need `scripts/with-servers`.

mod waiting;
