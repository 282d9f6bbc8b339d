//! Gives the binaries an rpath to the libpython they were linked with, so that another one on the
//! machine is not loaded in its place; and puts a function of the executor in the place of one of
//! librdkafka's (`executor/src/broker/kafka/leaders.rs` says why).

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafkap_leader_discovery_set_topic");
    }
}
