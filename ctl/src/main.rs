//! `lvsctl`: what operators use.

fn main() -> std::process::ExitCode {
    lvsmesh_ctl::main()
}
