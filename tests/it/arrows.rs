//! The architecture: a module names only modules that stand above it in `lib.rs`, the wire's types
//! stay in `transport`, and what surrounds the process is read in one place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What only these modules may name.
const RESERVED: [(&str, &[&str]); 9] = [
    ("::tonic", &["proto", "transport", "cli"]),
    ("::tonic_health", &["transport"]),
    ("::tonic_reflection", &["transport"]),
    ("::tonic_prost", &["proto"]),
    // The page of metrics is the composition root's own.
    ("::axum", &["transport", "app"]),
    ("::octocrab", &["github"]),
    ("::jsonwebtoken", &["oidc", "cloud"]),
    ("::moka", &["cache"]),
    // Patterns mean what Go makes of them.
    ("::regex_automata", &["pattern"]),
];

/// Paths into `std` that one module alone may name.
const AMBIENT: [(&[&str], &[&str]); 2] =
    // A source of identities may be a program; the agent runs the operator's command on renewal.
    [
        (&["::std", "env"], &["environment", "config", "cli"]),
        (&["::std", "process"], &["client", "agent", "cli", "main"]),
    ];

/// Which module names what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: Vec<String>,
}

fn arrow(from: &str, to: &str) -> Arrow {
    Arrow { from: from.into(), to: to.split("::").map(str::to_owned).collect() }
}

/// A piece of Rust: a name, or one character of punctuation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Sign(char),
}

/// The names and signs of a source text, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    flatten(text.parse().unwrap_or_else(|error| panic!("{error}: {text}")), &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut after_quote = false;
    for tree in stream {
        let is_lifetime = std::mem::take(&mut after_quote);
        match tree {
            TokenTree::Ident(name) if !is_lifetime => tokens.push(Token::Name(name.to_string())),
            TokenTree::Ident(_) | TokenTree::Literal(_) => {}
            TokenTree::Punct(sign) if sign.as_char() == '\'' => after_quote = true,
            TokenTree::Punct(sign) => tokens.push(Token::Sign(sign.as_char())),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => (Some('{'), Some('}')),
                    Delimiter::Parenthesis => (Some('('), Some(')')),
                    Delimiter::Bracket => (Some('['), Some(']')),
                    Delimiter::None => (None, None),
                };
                tokens.extend(open.map(Token::Sign));
                flatten(group.stream(), tokens);
                tokens.extend(close.map(Token::Sign));
            }
        }
    }
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let marker: Vec<Token> = self::tokens("#[cfg(test)]");
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].starts_with(&marker) {
            at = end_of_item(tokens, at + marker.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the `;` or the closing brace with which an item ends.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') => {
                depth -= 1;
                if depth == 0 && *token == Token::Sign('}') {
                    return at + 1;
                }
            }
            Token::Sign(';') if depth == 0 => return at + 1,
            Token::Sign(_) | Token::Name(_) => {}
        }
    }
    tokens.len()
}

/// Every path that starts with the name at `at`, a tree of braces spread out, and where it ends.
fn paths(tokens: &[Token], mut at: usize) -> (Vec<Vec<String>>, usize) {
    let mut path = Vec::new();
    let colons = |at: usize| {
        tokens[at.min(tokens.len())..].starts_with(&[Token::Sign(':'), Token::Sign(':')])
    };
    while let Some(Token::Name(name)) = tokens.get(at) {
        path.push(name.clone());
        at += 1;
        if !colons(at) {
            let renamed = tokens.get(at) == Some(&Token::Name("as".into()));
            return (vec![path], at + if renamed { 2 } else { 0 });
        }
        at += 2;
    }
    if tokens.get(at) != Some(&Token::Sign('{'))
        || path.is_empty() && !matches!(tokens.get(at), Some(Token::Sign('{')))
    {
        return (if path.is_empty() { vec![] } else { vec![path] }, at.max(1));
    }
    let mut all = Vec::new();
    at += 1;
    while at < tokens.len() && tokens[at] != Token::Sign('}') {
        if matches!(tokens[at], Token::Name(_)) {
            let (inner, end) = paths(tokens, at);
            all.extend(
                inner.into_iter().map(|tail| path.iter().cloned().chain(tail).collect::<Vec<_>>()),
            );
            at = end;
        } else {
            at += 1;
        }
    }
    (all, at + 1)
}

/// Everything that a file names, as paths from the crate's root or from another crate. `module` is
/// the file's own path in the crate.
fn named(text: &str, module: &[&str]) -> BTreeSet<Vec<String>> {
    let tokens = without_tests(&tokens(text));
    let (mut found, mut at, mut depth) = (BTreeSet::new(), 0, Vec::new());
    let mut inner: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
    let mut braces = 0_usize;
    while at < tokens.len() {
        match &tokens[at] {
            // A module within the file: `super` means something else there.
            Token::Name(word) if word == "mod" && tokens.get(at + 2) == Some(&Token::Sign('{')) => {
                if let Token::Name(name) = &tokens[at + 1] {
                    inner.push(name.clone());
                    depth.push(braces);
                }
                at += 2;
            }
            Token::Name(_) => {
                let is_path_start = at == 0 || tokens[at - 1] != Token::Sign(':');
                let (all, end) = paths(&tokens, at);
                if is_path_start {
                    found.extend(all.iter().filter_map(|path| resolve(path, &inner)));
                }
                // What stands in braces behind a name that is no path is code of its own.
                at = if tokens.get(at + 1) == Some(&Token::Sign(':')) && end > at {
                    end
                } else {
                    at + 1
                };
            }
            Token::Sign(sign) => {
                if *sign == '{' {
                    braces += 1;
                }
                if *sign == '}' {
                    braces = braces.saturating_sub(1);
                    if depth.last() == Some(&braces) {
                        depth.pop();
                        inner.pop();
                    }
                }
                at += 1;
            }
        }
    }
    found
}

/// A path from the crate's root, or one that starts elsewhere (`::tonic`, or a module of this one);
/// `None` for a single word and for what stays in the module.
fn resolve(path: &[String], module: &[String]) -> Option<Vec<String>> {
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()).filter(|rest| !rest.is_empty()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = module.len().saturating_sub(ups);
            Some(module[..base].iter().chain(&path[ups..]).cloned().collect())
        }
        "self" | "Self" => None,
        first if path.len() > 1 => Some([vec![format!("::{first}")], path[1..].to_vec()].concat()),
        _ => None,
    }
}

/// The top modules in the order of `lib.rs`, by rank.
fn ranks(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let module = |pair: &[Token]| match pair {
        [Token::Name(word), Token::Name(name)] if word == "mod" => Some(name.clone()),
        _ => None,
    };
    tokens.windows(2).filter_map(module).collect()
}

/// The arrows of one file between top modules, and to reserved crates and places.
fn arrows(text: &str, module: &[&str], ranks: &[String]) -> BTreeSet<Arrow> {
    let own = module.first().copied().unwrap_or_default();
    let is_reserved = |path: &[String]| {
        RESERVED.iter().any(|(name, _)| path[0] == *name)
            || AMBIENT.iter().any(|(prefix, _)| path.starts_with_names(prefix))
    };
    named(text, module)
        .into_iter()
        .filter(|path| path[0] != own && (ranks.contains(&path[0]) || is_reserved(path)))
        .map(|to| Arrow { from: own.to_owned(), to })
        .collect()
}

trait StartsWithNames {
    fn starts_with_names(&self, names: &[&str]) -> bool;
}

impl StartsWithNames for [String] {
    fn starts_with_names(&self, names: &[&str]) -> bool {
        self.len() >= names.len() && self.iter().zip(names).all(|(have, want)| have == want)
    }
}

/// Why an arrow may not be, if so.
fn fault(arrow: &Arrow, ranks: &[String]) -> Option<String> {
    let Arrow { from, to } = arrow;
    let refused = |allowed: &[&str], what: &str| {
        (!allowed.contains(&from.as_str()))
            .then(|| format!("{from} names {}, which is for {what} {allowed:?}", to.join("::")))
    };
    if let Some((_, allowed)) = RESERVED.iter().find(|(name, _)| to[0] == *name) {
        return refused(allowed, "modules");
    }
    if let Some((_, allowed)) = AMBIENT.iter().find(|(prefix, _)| to.starts_with_names(prefix)) {
        return refused(allowed, "modules");
    }
    let rank = |name: &str| ranks.iter().position(|module| module == name);
    // The binary stands below everything.
    let own = rank(from).unwrap_or(usize::MAX);
    (rank(&to[0])? >= own).then(|| format!("{from} names {}, which stands below it", to.join("::")))
}

/// All source files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all
}

/// The module path of a file below `src`.
fn module_of(file: &Path, src: &Path) -> Vec<String> {
    let path = file.strip_prefix(src).unwrap().with_extension("");
    let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod" && part != "lib").collect()
}

#[test]
fn a_module_names_only_modules_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let ranks = ranks(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut seen = BTreeSet::new();
    for file in files(&src) {
        let module = module_of(&file, &src);
        // Tests beside the code, and what the build generated.
        if module.is_empty() || module.iter().any(|part| part == "tests") {
            continue;
        }
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        seen.extend(arrows(&fs::read_to_string(&file).unwrap(), &module, &ranks));
    }
    let faults: Vec<_> = seen.iter().filter_map(|arrow| fault(arrow, &ranks)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let between: BTreeSet<_> = seen
        .iter()
        .filter(|arrow| ranks.contains(&arrow.to[0]))
        .map(|a| (&a.from, &a.to[0]))
        .collect();
    // Far fewer would mean that this test has lost its eyes.
    assert!(between.len() >= 60, "only {} arrows between modules: {between:?}", between.len());
    assert!(ranks.len() >= 18, "{ranks:?}");
    for (from, to) in
        [("exchange", "store"), ("store", "github"), ("transport", "::tonic"), ("app", "transport")]
    {
        assert!(
            seen.iter().any(|arrow| arrow.from == from && arrow.to[0] == to),
            "{from} → {to} was not seen"
        );
    }
}

/// The files of the emulated GitHub, each before those that may name it. The last four implement
/// the handle `GitHub` or answer for it, and may name what their parent declares.
const EMULATOR: [&str; 25] = [
    "route",
    "options",
    "reply",
    "versions",
    "files",
    "faults",
    "limits",
    "record",
    "deliveries",
    "state",
    "app_jwt",
    "caller",
    "shapes",
    "apps",
    "tokens",
    "checks",
    "contents",
    "pulls",
    "repos",
    "disk",
    "git",
    "hooks",
    "pipeline",
    "observe",
    "setup",
];

#[test]
fn files_of_the_emulator_depend_in_one_direction() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rank = |name: &str| EMULATOR.iter().position(|file| *file == name);
    let last = rank("git").unwrap();
    let mut circles = Vec::new();
    let mut seen = 0;
    for file in files(&src.join("emulator/github")) {
        let module = module_of(&file, &src);
        let own = rank(module.last().unwrap()).unwrap_or_else(|| panic!("{module:?} has no rank"));
        let path: Vec<&str> = module.iter().map(String::as_str).collect();
        for to in named(&fs::read_to_string(&file).unwrap(), &path) {
            if to.len() < 3 || to[..2] != ["emulator", "github"] || module.starts_with(&to[..3]) {
                continue;
            }
            seen += 1;
            if rank(&to[2]).map_or(own < last, |above| above >= own) {
                circles.push(format!("{} names {}", module.join("::"), to.join("::")));
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
    assert!(seen >= 60, "only {seen} names were seen");
}

/// The permission to fetch the keys of an unknown issuer is given by the gate alone.
#[test]
fn only_the_gate_admits_an_issuer() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut callers = Vec::new();
    for file in files(&src) {
        let module = module_of(&file, &src).join("::");
        let tokens = without_tests(&tokens(&fs::read_to_string(&file).unwrap()));
        let calls = tokens.iter().any(|token| *token == Token::Name("by_gate".into()));
        if calls && !module.contains("tests") {
            callers.push(module);
        }
    }
    callers.sort();
    assert_eq!(callers, ["oidc::issuers", "policy::gate"], "where it is defined, and the gate");
}

#[test]
fn the_order_is_the_one_of_the_journey() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let ranks = ranks(&lib);
    let order = [
        "name",
        "clock",
        "reason",
        "telemetry",
        "cache",
        "egress",
        "oidc",
        "policy",
        "github",
        "store",
    ];
    let order = order.iter().chain(&["audit", "exchange", "transport", "config", "app", "cli"]);
    let at: Vec<_> =
        order.map(|name| ranks.iter().position(|module| module == name).unwrap()).collect();
    assert!(at.is_sorted(), "{ranks:?}");
}

/// Modules of an invented crate.
fn invented() -> Vec<String> {
    ["name", "clock", "policy", "store", "exchange"].map(str::to_owned).to_vec()
}

fn faults(text: &str, module: &[&str]) -> Vec<String> {
    let ranks = invented();
    arrows(text, module, &ranks).iter().filter_map(|arrow| fault(arrow, &ranks)).collect()
}

#[test]
fn each_way_of_naming_a_module_below_is_seen() {
    for text in [
        "use crate::exchange;",
        "use crate::exchange::Exchange;",
        "use crate::exchange as e;",
        "use crate::{exchange};",
        "use crate::{clock::Clock, exchange::{self, Exchange}};",
        "use crate::{\n    clock::{Clock, UnixTime},\n    name::*,\n    exchange::*,\n};",
        "pub(crate) use crate::exchange::Exchange;",
        "pub use crate::{self as root, exchange};",
        "fn f() { crate::exchange::go(); }",
        "fn f(e: &crate::exchange::Exchange<'static>) {}",
        "fn f() { let x = 'a'; let y: &'static str = \"\"; crate::exchange::go() }",
        "impl crate::exchange::Trait for X {}",
        "mod inner { fn f() { super::super::exchange::go(); } }",
        "mod a { mod b { use super::super::super::exchange::E; } }",
        "use super::exchange::Exchange;",
        "use super::{clock, exchange::Exchange};",
        "#[cfg(not(test))]\nuse crate::exchange::X;",
        "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::exchange::X;",
        "#[cfg(test)]\nuse crate::name::N;\nuse crate::exchange::X;",
        "macro_rules! m { () => { $crate::exchange::go() } }",
        "// \"\nuse crate::exchange::X; // \"",
        "const S: &str = r#\"\"#; use crate::exchange::X;",
        "use std::env;",
        "fn f() { std::env::var(\"X\"); }",
        "use std::{env::var, fmt};",
        "use std::{fmt, process::{self, ExitCode}};",
        "use tonic::Status;",
        "fn f() -> axum::Router { todo() }",
        "use octocrab as o; fn f() { octocrab::new() }",
    ] {
        assert!(!faults(text, &["policy"]).is_empty(), "{text}");
    }
    assert_eq!(faults("use super::super::exchange::E;", &["policy", "parse"]).len(), 1);
    assert_eq!(
        faults("use super::super::super::exchange::E;", &["policy", "parse", "deep"]).len(),
        1
    );
}

#[test]
fn what_is_allowed_or_is_no_code_is_not_a_fault() {
    for text in [
        "use crate::{clock::Clock, name::Owner};",
        "use super::{clock::Clock};",
        "use self::exchange::X;",
        "mod exchange; use exchange::X;",
        "mod inner { fn f() { super::exchange(); } }",
        "// use crate::exchange::X;\n/* crate::exchange /* nested */ crate::exchange */",
        "/// See [`crate::exchange`].\nfn f() {}",
        "const S: &str = \"use crate::exchange::X;\";",
        "const S: &str = r##\"crate::exchange \"# \"##;",
        "#[cfg(test)]\nmod tests {\n use crate::exchange::X; fn f() { { } } }",
        "#[cfg(test)]\nuse crate::exchange::X;",
        "#[cfg(test)]\nimpl X { fn f() { crate::exchange::go() } }",
        "use std::time::Duration;",
        "fn f(exchange: u8) { let store = exchange; }",
        "use other::exchange::Thing;",
    ] {
        assert_eq!(faults(text, &["policy"]), [""; 0], "{text}");
    }
    assert_eq!(
        faults("use super::{exchange::X, Y}; use super::super::name::N;", &["policy", "parse"]),
        [""; 0]
    );
    assert_eq!(faults("use crate::{store::Store, policy};", &["exchange"]), [""; 0]);
}

#[test]
fn paths_are_spread_out() {
    let found = named("use a::{b, c::{d, e as f}, g::*}; fn x() { h::i::<j::K>() }", &["m"]);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["::a::b", "::a::c::d", "::a::c::e", "::a::g", "::h::i", "::j::K"]);
    assert_eq!(
        arrows("use crate::name::{Owner, Repo};", &["store"], &invented()),
        BTreeSet::from([arrow("store", "name::Owner"), arrow("store", "name::Repo")])
    );
}

#[test]
fn the_gate_alone_admits_an_unknown_issuer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut callers = Vec::new();
    for file in files(&root)
        .into_iter()
        .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
    {
        let tokens = without_tests(&tokens(&fs::read_to_string(&file).unwrap()));
        let name = |at: usize| {
            tokens.get(at).and_then(|token| match token {
                Token::Name(name) => Some(name.as_str()),
                Token::Sign(_) => None,
            })
        };
        if (1..tokens.len()).any(|at| name(at) == Some("by_gate") && name(at - 1) != Some("fn")) {
            callers.push(file.strip_prefix(&root).unwrap().to_path_buf());
        }
    }
    assert_eq!(callers, [Path::new("policy/gate.rs")]);
}
