//! Parser events → tree, with everything refused that the tree could not show.

use serde_yaml::granit_parser::{
    self, ErrorKind, Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag,
};

use super::{At, Errors, Invalid, Mark, Node, Scalar, Value, scalar};

/// Anchors and aliases in one file, together.
const MAX_ANCHORS: usize = 16;
/// Flow collections inside each other, and block collections likewise.
const MAX_DEPTH: usize = 16;
/// Nodes, those that aliases repeat included.
const MAX_NODES: usize = 16 * 1024;
/// Bytes of scalars, those that aliases repeat included.
const MAX_SCALAR_BYTES: usize = 256 * 1024;

/// Parses the one document of a text. What single values break is noted in `errors`; what leaves
/// no tree ends it.
pub(super) fn parse(text: &str, letters: LetterKeys, errors: &mut Errors) -> Result<Node, Invalid> {
    let options = granit_parser::options! {
        strict_indentation: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        letters,
        anchors: Vec::new(),
        anchors_and_aliases: 0,
        nodes: 0,
        scalar_bytes: 0,
        errors,
    };
    reader.document()
}

struct Reader<'a, 'e> {
    events: Parser<'a, StrInput<'a>>,
    letters: LetterKeys,
    errors: &'e mut Errors,
    /// Finished nodes by the parser's anchor id. A node inside itself is not finished, so it
    /// cannot be repeated.
    anchors: Vec<(usize, Node)>,
    anchors_and_aliases: usize,
    nodes: usize,
    scalar_bytes: usize,
}

impl<'a> Reader<'a, '_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's events are an open set; what is not expected is refused"
    )]
    fn document(&mut self) -> Result<Node, Invalid> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Invalid::at(mark(&span), "there is more than one document"));
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                content => root = Some(self.node(content, &span)?),
            }
        }
        root.ok_or_else(|| Invalid::file("the file is empty"))
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), Invalid> {
        self.events
            .next()
            .unwrap_or_else(|| Err(ScanError::new(granit_parser::Marker::default(), "ended")))
            .map_err(|error| malformed(&error))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's events are an open set; what is not expected is refused"
    )]
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Invalid> {
        let mark = mark(span);
        let (anchor, value) = match event {
            Event::Alias(id) => return self.alias(id, mark),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Value::Scalar(self.scalar(&text, style, tag.as_deref(), mark)))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), mark);
                (anchor, Value::List(self.list()?))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), mark);
                (anchor, Value::Map(self.map()?))
            }
            _ => return Err(Invalid::at(mark, NOT_YAML)),
        };
        let node = Node { mark, value };
        self.count(&node)?;
        if anchor != 0 {
            self.count_anchor(mark)?;
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, mark: Mark) -> Result<Node, Invalid> {
        self.count_anchor(mark)?;
        let target = self.anchors.iter().find(|(anchor, _)| *anchor == id);
        let Some((_, node)) = target.cloned() else {
            return Err(Invalid::at(mark, "an alias repeats what it stands in"));
        };
        self.count_all(&node)?;
        Ok(Node { mark, value: node.value })
    }

    fn list(&mut self) -> Result<Vec<Node>, Invalid> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Vec<(At<String>, Node)>, Invalid> {
        let mut entries = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            if merge {
                self.errors.push(Invalid::at(mark(&span), "merge keys are not supported"));
            }
            if span.start.line() != span.end.line() && matches!(event, Event::Scalar(..)) {
                return Err(Invalid::at(mark(&span), "a key stands on one line"));
            }
            let event = if self.letters == LetterKeys::Text { quote_letter(event) } else { event };
            let node = self.node(event, &span)?;
            let key = match &node.value {
                Value::Scalar(Scalar::Integer(text)) if text.parse::<i64>().is_err() => {
                    return Err(Invalid::at(node.mark, scalar::AMBIGUOUS));
                }
                Value::Scalar(scalar) => scalar.text(),
                Value::List(_) | Value::Map(_) => None,
            };
            let Some(key) = key.map(str::to_owned) else {
                return Err(Invalid::at(node.mark, "a key is a text"));
            };
            let is_new = seen.insert(key.clone());
            let (event, span) = self.next()?;
            let value = self.node(event, &span)?;
            if !is_new {
                self.errors.push(Invalid::at(node.mark, "this key was there before"));
                continue;
            }
            entries.push((At { mark: node.mark, value: key }, value));
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, mark: Mark) -> Scalar {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        if !is_text {
            self.refuse_tag(tag, mark);
        }
        if is_text && style == ScalarStyle::Plain && text.is_empty() {
            self.errors.push(Invalid::at(mark, "a tag needs a value"));
        }
        let plain =
            if is_text || style != ScalarStyle::Plain { None } else { Some(Scalar::plain(text)) };
        match plain {
            Some(Some(scalar)) => return scalar,
            Some(None) => self.errors.push(Invalid::at(mark, scalar::AMBIGUOUS)),
            None => {}
        }
        Scalar::Text(text.into())
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, mark: Mark) {
        if tag.is_some() {
            self.errors.push(Invalid::at(mark, "tags are not read"));
        }
    }

    fn count_anchor(&mut self, mark: Mark) -> Result<(), Invalid> {
        self.anchors_and_aliases += 1;
        if self.anchors_and_aliases > MAX_ANCHORS {
            return Err(Invalid::at(mark, "there are more than 16 anchors and aliases"));
        }
        Ok(())
    }

    /// Counts a node without what is inside it.
    fn count(&mut self, node: &Node) -> Result<(), Invalid> {
        self.nodes += 1;
        if let Value::Scalar(scalar) = &node.value {
            self.scalar_bytes += scalar.text().map_or(0, str::len);
        }
        if self.nodes > MAX_NODES || self.scalar_bytes > MAX_SCALAR_BYTES {
            return Err(Invalid::at(node.mark, "the file has too many values"));
        }
        Ok(())
    }

    /// Counts a node with what is inside it.
    fn count_all(&mut self, node: &Node) -> Result<(), Invalid> {
        self.count(node)?;
        match &node.value {
            Value::Scalar(_) => Ok(()),
            Value::List(items) => items.iter().try_for_each(|item| self.count_all(item)),
            Value::Map(entries) => entries.iter().try_for_each(|(_, value)| self.count_all(value)),
        }
    }
}

/// What the plain keys `n` and `y` are. YAML 1.1 takes them for booleans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetterKeys {
    Refused,
    /// They are members of a JSON Web Key.
    Text,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other event stays")]
fn quote_letter(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, anchor, tag) if matches!(&*text, "n" | "y") => {
            Event::Scalar(text, ScalarStyle::SingleQuoted, anchor, tag)
        }
        other => other,
    }
}

const NOT_YAML: &str = "this is not well-formed YAML";

pub(super) fn mark(span: &Span) -> Mark {
    from_marker(&span.start)
}

fn from_marker(marker: &granit_parser::Marker) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(marker.line()), column: number(marker.col().saturating_add(1)) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other syntax errors are one to us")]
fn malformed(error: &ScanError) -> Invalid {
    let rule = match error.kind() {
        ErrorKind::UnknownAnchor => "an alias has no anchor before it",
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => {
            "indentation is by spaces, not tabs"
        }
        ErrorKind::RecursionLimitExceeded => "lists and maps are nested too deeply",
        ErrorKind::InvalidIndentation => "the indentation does not fit",
        _ => NOT_YAML,
    };
    Invalid::at(from_marker(error.marker()), rule)
}
