//! Writes the manual pages of `tidemark` and its completions for shells below a directory laid out as /usr/share:
//! `cargo run -p tidemark-cli --example manual -- DIRECTORY`. The packages have them.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> std::io::Result<()> {
    let Some(share) = std::env::args_os().nth(1) else {
        eprintln!("usage: manual DIRECTORY");
        std::process::exit(64);
    };
    let share = Path::new(&share);
    let mut command = tidemark_cli::Cli::command();
    let pages = share.join("man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), pages)?;
    for (shell, directory, file) in [
        (Shell::Bash, "bash-completion/completions", "tidemark"),
        (Shell::Zsh, "zsh/vendor-completions", "_tidemark"),
        (Shell::Fish, "fish/vendor_completions.d", "tidemark.fish"),
    ] {
        let directory = share.join(directory);
        fs::create_dir_all(&directory)?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "tidemark", &mut text);
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}
