//! Which modules a Rust file imports, read from its `use` lines without a compiler.

use super::tokens::tokens;

/// A `use` line, with one entry for each name in its braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    /// Names of the inline modules around it, outermost first.
    pub(super) within: Vec<String>,
    /// The path as written, for example `["crate", "paths",
    /// "Paths"]`. The last segment may be `*` or `self`.
    pub(super) path: Vec<String>,
    /// The name it has here: its last segment, or what follows `as`.
    pub(super) name: String,
    /// Whether it is a re-export (`pub use`, `pub(crate) use`).
    pub(super) is_public: bool,
}

/// What a file says about modules. Whatever is for tests alone is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) imports: Vec<Import>,
    /// Modules in files of their own that only tests have: a
    /// name, or the file that a `path` attribute names.
    pub(super) test_modules: Vec<String>,
}

impl Uses {
    /// Reads the text of a Rust file.
    pub(super) fn of(text: &str) -> Self {
        let tokens = tokens(text);
        let mut uses = Self::default();
        let mut attributes: Vec<&[String]> = Vec::new();
        // Inline modules around the present token, each with the brace depth inside it.
        let mut within: Vec<(String, usize)> = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            let next = |offset: usize| tokens.get(at + offset).map_or("", String::as_str);
            match next(0) {
                "#" if next(1) == "[" || (next(1) == "!" && next(2) == "[") => {
                    let end = closing(&tokens, at + 1, "[", "]");
                    attributes.push(&tokens[at..end]);
                    at = end;
                    continue;
                }
                "use" if next(1) != "<" => {
                    let end = tokens[at..].iter().position(|token| token == ";").map_or(tokens.len(), |end| at + end);
                    if !attributes.iter().any(|attribute| is_test(attribute)) {
                        let names = within.iter().map(|(name, _)| name.clone()).collect();
                        let outer = Import {
                            within: names,
                            path: Vec::new(),
                            name: String::new(),
                            is_public: is_public(&tokens[..at]),
                        };
                        branch(&tokens[at + 1..end], &outer, &mut uses.imports);
                    }
                    attributes.clear();
                    at = end;
                }
                "mod" if next(2) == "{" => {
                    if attributes.iter().any(|attribute| is_test(attribute)) {
                        at = closing(&tokens, at + 2, "{", "}");
                        attributes.clear();
                        continue;
                    }
                    depth += 1;
                    within.push((next(1).to_owned(), depth));
                    attributes.clear();
                    at += 2;
                }
                "mod" if next(2) == ";" => {
                    if attributes.iter().any(|attribute| is_test(attribute)) {
                        let path = attributes.iter().find_map(|attribute| path_of(attribute));
                        uses.test_modules.push(path.unwrap_or_else(|| next(1).to_owned()));
                    }
                    attributes.clear();
                    at += 2;
                }
                "{" => {
                    depth += 1;
                    attributes.clear();
                }
                "}" => {
                    within.retain(|&(_, inside)| inside < depth);
                    depth = depth.saturating_sub(1);
                    attributes.clear();
                }
                ";" => attributes.clear(),
                _ => {}
            }
            at += 1;
        }
        uses
    }
}

/// One level of a `use` tree: `a::b::{C, d::E as F}`.
fn branch(tokens: &[String], outer: &Import, imports: &mut Vec<Import>) {
    let mut path = outer.path.clone();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "::" if at == 0 && outer.path.is_empty() => path.push(String::new()),
            "::" => {}
            "{" => {
                let inside = &tokens[at + 1..closing(tokens, at, "{", "}") - 1];
                for part in at_commas(inside) {
                    branch(part, &Import { path: path.clone(), ..outer.clone() }, imports);
                }
                return;
            }
            "as" => break,
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    let Some(last) = path.last() else { return };
    let renamed = tokens.get(at + 1).filter(|_| tokens.get(at).is_some_and(|token| token == "as"));
    let own = if last == "self" && path.len() > 1 { path[path.len() - 2].clone() } else { last.clone() };
    imports.push(Import { name: renamed.cloned().unwrap_or(own), path, ..outer.clone() });
}

/// The pieces between the commas that stand in no braces.
fn at_commas(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0usize;
    let pieces = tokens.split(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        token == "," && depth == 0
    });
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// The place after the bracket that closes the first one at or after `from`.
fn closing(tokens: &[String], from: usize, open: &str, close: &str) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        if token == open {
            depth += 1;
        } else if token == close {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

fn is_test(attribute: &[String]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token == word);
    has("cfg") && has("test") && !has("not")
}

/// The file that `#[path = "..."]` names.
fn path_of(attribute: &[String]) -> Option<String> {
    let names_file = attribute.iter().any(|token| token == "path");
    attribute.iter().find_map(|token| token.strip_prefix('"')).filter(|_| names_file).map(str::to_owned)
}

/// Whether what precedes a `use` is `pub` or `pub(...)`.
fn is_public(before: &[String]) -> bool {
    match before.last().map(String::as_str) {
        Some("pub") => true,
        Some(")") => {
            let open = before.iter().rposition(|token| token == "(");
            open.and_then(|open| before[..open].last()).is_some_and(|token| token == "pub")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Uses::of(text).imports.iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn braces_are_taken_apart() {
        let text = "use crate::a::b::{self, C, d::{E, f::*}};\npub(crate) use super::g::H as I;\nuse ::std::fs;";
        let want = [
            "crate::a::b::self",
            "crate::a::b::C",
            "crate::a::b::d::E",
            "crate::a::b::d::f::*",
            "super::g::H",
            "::std::fs",
        ];
        assert_eq!(paths(text), want);
        let imports = Uses::of(text).imports;
        assert_eq!((imports[0].name.as_str(), imports[4].name.as_str()), ("b", "I"));
        assert!(imports[4].is_public && !imports[0].is_public);
    }

    #[test]
    fn comments_strings_and_captures_are_no_imports() {
        let text = r####"
            // use crate::a;
            /* use crate::b; /* nested */ use crate::c; */
            const TEXT: &str = "use crate::d; \" use crate::e;";
            const RAW: &str = r#"use crate::f; " "#;
            fn quote<'a>(c: char) -> impl Fn() + use<'a> { if c == '"' || c == '\'' { use crate::g::G; } }
        "####;
        assert_eq!(paths(text), ["crate::g::G"]);
    }

    #[test]
    fn what_is_for_tests_is_left_out() {
        let text = "#[cfg(test)]\nuse crate::a::A;\n#[cfg(not(test))]\nuse crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n    fn f() { {} }\n}\nuse crate::d::D;\n#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;\n#[cfg(test)]\nmod more;";
        assert_eq!(paths(text), ["crate::b::B", "crate::d::D"]);
        assert_eq!(Uses::of(text).test_modules, ["x_tests.rs", "more"]);
    }

    #[test]
    fn inline_modules_are_remembered() {
        let imports = Uses::of("mod a { mod b { use super::C; } } use self::d::D;").imports;
        assert_eq!((imports[0].within.join("::"), imports[1].within.len()), ("a::b".to_owned(), 0));
    }
}
