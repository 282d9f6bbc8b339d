//! Gives the binaries an rpath to the libpython they were linked with, so that another one on the
//! machine is not loaded in its place.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
