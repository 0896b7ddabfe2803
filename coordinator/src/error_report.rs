//! How a failed command reports its error on standard error, as the other programs do: an `error:`
//! line and, where a fix is known, a `hint:` line.

use std::error::Error;

use crate::cli::CliError;

/// The lines of the report. A cause is added where the message before it does not contain it: most
/// messages do.
pub fn error_report(error: &CliError) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
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
    use crate::setup::SetupError;

    #[test]
    fn a_cause_is_reported_once_and_a_known_fix_is_a_hint() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = CliError::from(ConfigError::Read { path: "c.toml".into(), source });
        assert_eq!(error_report(&error).matches("no such file").count(), 1, "{}", error_report(&error));
        assert!(error_report(&error).starts_with("error: cannot read c.toml: no such file\nhint: "));
        let url = IdentityError::Url { url: "here".to_owned() };
        let report = error_report(&SetupError::from(url).into());
        assert!(
            report.starts_with("error: \"here\" is not an address") && report.contains("\nhint: use the address"),
            "{report}"
        );
    }
}
