//! How a failed command is told on standard error: as the other programs tell it, an `error:` line and, where the mend is
//! known, a `hint:` line.

use std::error::Error;

use crate::cli::CliError;

/// The lines. A cause is told where the message before it does not tell it already: most messages do.
pub fn complaint(error: &CliError) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !message.contains(&told) {
            message = format!("{message}: {told}");
        }
        cause = error.source();
    }
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("error: {message}{hint}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use rondo_wire::identity::IdentityError;

    use super::*;
    use crate::config::ConfigError;
    use crate::set_up::SetUpError;

    #[test]
    fn a_cause_is_told_once_and_a_known_mend_is_a_hint() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = CliError::from(ConfigError::Read { path: "c.toml".into(), source });
        assert_eq!(complaint(&error).matches("no such file").count(), 1, "{}", complaint(&error));
        assert!(complaint(&error).starts_with("error: cannot read c.toml: no such file\nhint: "));
        let url = IdentityError::Url { url: "here".to_owned() };
        let told = complaint(&SetUpError::from(url).into());
        assert!(
            told.starts_with("error: \"here\" is not an address") && told.contains("\nhint: use the address"),
            "{told}"
        );
    }
}
