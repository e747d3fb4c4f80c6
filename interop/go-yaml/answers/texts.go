package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// scalars are plain values that some reader takes for something else than text, and their neighbours.
var scalars = strings.Fields(`y Y n N yes Yes YES no No NO on On ON off Off OFF true True TRUE false False FALSE ~ null Null NULL nUll yEs tRue
	0 -0 +0 1 -1 +1 00 01 -01 010 08 09 0_1 1_0 _1 1_ 1__0 +1_0 123456789 9223372036854775807 9223372036854775808 18446744073709551615
	18446744073709551616 117000000000000000001 -9223372036854775808 -9223372036854775809 1e1 1E1 1e+1 1e-1 1e1_0 1_0e1 1e 1e+ e1 1.0 1. .5 -.5 +.5 . .. ... 1.5e3 1.5E3 1_0.5 1._5
	1.5_0 ._5 .5_ 1.e3 .e3 1.2.3 1.2e 0.0 -0.0 0x 0x1f 0X1F 0x1F 0x_1f 0x1_f +0x1f -0x1f +0X1F -0X1F 0xg 0x1.8p3 0x1p-2 0X1P+2 0b1 0B1 0b11 0B11 0b_1 +0b1 -0b1
	-0B1 0b2 0o17 0O17 0o_17 -0o17 +0O17 0o8 0o 0b 017 0_17 190:20:30 190:20:30.15 1:20 -1:20 1:60 12:30:45 01:20 1:2:3 20:59 .inf .Inf .INF .iNF +.inf -.inf -.Inf
	.nan .NaN .NAN .Nan +.nan inf Inf infinity nan NaN Infinity +Inf -inf 2020-01-01 2020-1-1 2020-13-01 2020-01-01T00:00:00Z 2020-01-01t00:00:00z
	2020-01-01T0:0:0.5+01:00 2020-1-1T1:2:3Z 20-01-01 12020-01-01 2020-01 = << <<: ? - ?a -a :a a: a:b - -- --- !!str !a &a *a @a %a !!str%41 0x1fG 1a a1 1-2
	- ?r ,a [] {} "" '' "y" 'n' "\x85" "\u2028" "\N" "\L" "\P" "\_" "\e" "\a" "\/" "\z" "\ud800" "\U0001F600" "\x1b" "\0" 'it''s' a#b a'b a"b` + "\n\u00a0 \ufeff a\u00a0b a\ufeffb a\u00adb a\u200bb a\U0001F600b \ue000 a\u0085b a\u2028b a\u2029b")

// fixed are texts of which a difference was found once, or is near.
var fixed = []string{
	"# Only main:\u2028claim_pattern: {ref: refs/heads/main}\nissuer: a\n", "# c\u2029issuer: b\n", "# c\u0085issuer: b\n",
	"issuer: a\u2028subject: b\n", "issuer: 'a\u2028b'\n", "issuer: \"a\u2029b\"\n", "issuer: |\n  a\u0085  b\n", "a\u2028b: c\n", "issuer: \"a\\Lb\\Pc\\Nd\\u2028\\x85\"\n",
	"issuer: |\n  a", "issuer: |\n  a\n", "issuer: |+\n  a\n\n\n", "issuer: |-\n  a", "issuer: >\n  a\n  b", "issuer: >\n  a", "issuer: |\n  a\n ", "issuer: |\n  a\n  ",
	"issuer: |\n  a\r\n", "issuer: |\n  a\r", "issuer: |", "issuer: |\n", "issuer: |+", "issuer: |+\n  a", "issuer: |2\n  a", "issuer: |1\n  a\n", "issuer: >+\n  a\n\n",
	"issuer: &a: x\n", "issuer: &a x\nsubject: *a\n", "issuer: &a: x\nsubject: *a:\n", "issuer: &a:b x\n", "issuer: &a.b x\n", "issuer: &a-b x\nsubject: *a-b\n", "issuer: &é x\n",
	"issuer: &a\n", "&a issuer: x\nsubject: *a\n", "&a: issuer: x\n", "issuer: &a x\n*a : y\n", "repositories: [&a x, *a]\n", "issuer: &a,b x\n", "issuer: &[a x\n",
	"issuer: a\r\nsubject: b\r\n", "issuer: a\rsubject: b\r", "issuer: a\n\rsubject: b\n", "\ufeffissuer: a\n", "issuer: a\n\ufeffsubject: b\n", "issuer: \ufeffa\n", "issuer: a\ufeff\n",
	"issuer:\ta\n", "issuer: a\t# c\n", "issuer: a\t\n", "\tissuer: a\n", "issuer: 'a\n\n  b'\n", "issuer: 'a\n\tb'\n", "issuer: a\n  b\n", "issuer: a\n\tb\n", "issuer: \"a\\\n  b\"\n", "issuer: \"a \\\n\\ b\"\n",
	"{issuer: a}\n", "{\"issuer\":a}\n", "{\"issuer\":\"a\"}", "{issuer:a}\n", "{issuer}\n", "{issuer: a,}\n", "{,}\n", "{issuer: a, , }\n", "[issuer: a]\n", "{issuer: [a]}\n", "{? issuer : a}\n", "? issuer\n: a\n", "? issuer\n",
	"claim_pattern: {a: b\n, c: d}\n", "claim_pattern: {a: b\n}\n", "claim_pattern: {\na: b}\n", "claim_pattern:\n- a: b\n", "claim_pattern:\n  a: b\n c: d\n", "claim_pattern:\n  a:\n    b\n", "claim_pattern:\n  a: >\n   b\n  c: d\n",
	"claim_pattern: {a#b: c}\n", "claim_pattern: {a: b#c}\n", "claim_pattern: {a: b #c\n}\n", "claim_pattern: {a: 'b'#c\n}\n", "issuer: 'a'#c\n", "issuer: a #c\n", "issuer: \"a\"b\n", "issuer: 'a' b\n",
	"claim_pattern: {a: b:c}\n", "claim_pattern: {a: b:}\n", "claim_pattern: {a:b}\n", "claim_pattern: {a: :b}\n", "claim_pattern: {a: ?b}\n", "claim_pattern: {a: -b}\n", "claim_pattern: {a: - b}\n", "claim_pattern: {a: b?c}\n", "claim_pattern: {a: b-}\n",
	"claim_pattern: {a: [b]}\n", "claim_pattern: {a: }\n", "claim_pattern: {a: ~}\n", "claim_pattern: {a: ''}\n", "claim_pattern: ''\n", "claim_pattern: ~\n", "claim_pattern:\n", "claim_pattern: []\n", "claim_pattern: {}\n",
	"issuer: a\n---\nsubject: b\n", "---\nissuer: a\n...\n", "issuer: a\n...\nb\n", "issuer: a\n--- b\n", "--- {issuer: a}\n", "---issuer: a\n", "%YAML 1.1\n---\nissuer: a\n", "%YAML 1.2\n---\nissuer: a\n", "%YAML 2.0\n---\nissuer: a\n", "%TAG ! a\n---\nissuer: a\n", "%a\n---\nissuer: a\n",
	"issuer: a\nissuer: b\n", "issuer: a\nIssuer: b\n", "Issuer: a\n", "claim_pattern: {a: b, a: c}\n", "claim_pattern: {true: b, 'true': c}\n", "claim_pattern: {1: b, '1': c}\n", "claim_pattern: {~: b}\n", "claim_pattern: {? [a] : b}\n", "claim_pattern: {'': b}\n",
	"claim_pattern: {<<: {a: b}}\n", "claim_pattern:\n  <<: &x {a: b}\n", "x: &x {a: b}\nclaim_pattern: *x\n", "issuer: !!str a\n", "issuer: !!str 1\n", "issuer: !!int 1\n", "issuer: !!binary aGk=\n", "issuer: ! a\n", "issuer: ! 1\n", "issuer: !a b\n", "issuer: !!str\n", "claim_pattern: !!map {a: b}\n", "issuer: !!null ''\n", "issuer: !<tag:yaml.org,2002:str> 1\n", "issuer: !!float 1\n",
	"issuer: `a`\n", "issuer: @a\n", "issuer: %a\n", "issuer: a%\n", "issuer: |a\n", "issuer: >a\n", "issuer: -\n", "issuer: - a\n", "issuer: -a\n", "issuer: : a\n", "issuer: :a\n", "issuer: ?a\n", "issuer: ? a\n", "issuer: a: b\n", "issuer: a:\n", "issuer: a :b\n", "issuer: a, b\n", "issuer: a]\n", "issuer: [a\n", "issuer: {a\n", "issuer: a}\n",
	"", "\n", "#\n", "---\n", "~\n", "''\n", "{}\n", "[]\n", "issuer\n", "issuer:\n", "- issuer: a\n", "issuer: \x01\n", "issuer: \x7f\n", "issuer: \u009f\n", "# \x7f\n", "issuer: \ufffe\n", "issuer: \"\x7f\"\n", "issuer: \"a\tb\"\n", "issuer: a\tb\n", "issuer: a\t\tb \n",
}

// seeds are policies and lists as they are written, to be changed at random.
var seeds = []struct{ kind, text string }{
	{"repository", "# Only main may deploy.\nissuer: https://token.actions.githubusercontent.com\nsubject_pattern: repo:acme/api:ref:refs/heads/(main|release)\nclaim_pattern:\n  job_workflow_ref: acme/workflows/\\.github/workflows/deploy\\.yaml@refs/heads/main # pinned\n  repository_id: \"600000001\"\n\npermissions:\n  contents: read\n  pull_requests: write\n"},
	{"repository", "issuer: https://accounts.google.com\nsubject: '1170000001'\naudience: sts.example.com\nclaim_pattern: {email: '.*@example\\.com', email_verified: true, \"hd\": \"example\\x2ecom\"}\npermissions: {contents: write}\n"},
	{"repository", "---\nissuer_pattern: >-\n  https://[a-z0-9-]+\\.oidc\n  \\.example\\.com\nsubject: |\n  build\n  test\naudience_pattern: \"a\\\n  b\"\npermissions:\n    checks: &level write\n    statuses: *level\n"},
	{"repository", "issuer: https://k8s.example:6443\nsubject: system:serviceaccount:default:deployer\nclaim_pattern:\n  kubernetes.io/namespace: default\n  kubernetes.io/serviceaccount/name: 'deploy''er'\n  a: 1\n  b: -42\n  c: false\n  d: \"multi\n\n    line\"\n  e: plain\n    folded\napp: 12345\n\npermissions:\n  issues: read\n"},
	{"organization", "issuer: https://token.actions.githubusercontent.com\nsubject: repo:acme/.github:ref:refs/heads/main\n\npermissions:\n  contents: read\n  members: read\n\nrepositories:\n  - api\n  - web   # the front\n  - 'docs'\n"},
	{"organization", "issuer: &i https://a.example\nsubject: build\nclaim_pattern:\n  iss: *i\npermissions: {contents: read}\nrepositories: [api, \"web\", 'docs',\n  more]\napp_pattern: bot-.*\n"},
	{"list", "mode: enforce\nissuers:\n  - https://token.actions.githubusercontent.com\n  - https://accounts.google.com\nissuer_patterns:\n- https://oidc\\.eks\\.[a-z0-9-]+\\.amazonaws\\.com/id/[A-F0-9]+\n"},
	{"list", "{mode: audit, issuers: ['https://a.example', \"https://b.example\"], issuer_patterns: []}\n"},
}

var pieces = []string{
	" ", " ", "  ", "\t", "\n", "\n", "\n\n", "\n  ", "\n ", "\n    ", "\r", "\r\n", "\n\r", "\u0085", "\u2028", "\u2029", "\ufeff", "\u00a0", "\u200b", "\x00", "\x1b", "\x7f", "\u009f", "\ufffe", "\U0001F600", "é",
	"#", " # c", "#c", "\n# c\n", "\n  # c\n", ":", ": ", " :", ": :", "-", "- ", "\n- ", "\n  - ", "--", "---", "\n---\n", "...", "\n...\n", "? ", "?", "\n? ", ",", ", ", ",,", "[", "]", "{", "}", "[]", "{}", "[a]", "{a: b}", "{a}", "{a: }", "[a: b]", "[[a]]",
	"\"", "\"", "'", "'", "''", "\\", "\\\n", "\\n", "\\x41", "\\x85", "\\u2028", "\\N", "\\L", "\\P", "\\_", "\\e", "\\0", "\\/", "\\ ", "\\t", "\\q", "\\ud83d\\ude00", "\\U0001F600", "\\U00110000",
	"|", ">", "|\n", ">\n  ", "|-\n  ", "|+\n  ", ">-", "|2\n", "|-2\n  ", ">1", "|\n\n  a\n\n", "|#c\n  a", "| #c\n  a", "|\n   a\n  b\n", ">\n\n  a\n   b\n  c\n\n", "|\n\t a", "&", "&a ", "&a", "&a: ", "*a", "*a ", "*", "*level", "*i", "&level ", "!", "! ", "!!str ", "!!int ", "!a ", "!!", "!<a> ", "!!map ", "!!seq ",
	"<<: ", "<<", "=", "%", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "@", "`", "~", "null", "true", "yes", "y", "n", "1", "010", "0X1F", "1e1_0", "1.0", "2020-01-01", "-0", "+1", "0o7", "1_000", "12:30",
	"issuer: ", "issuer", "subject: b\n", "\nsubject: b\n", "\nclaim_pattern: {ref: main}\n", "Issuer: a\n", "\nrepositories: [a]\n", "a", "a: b", "x y", "permissions", "mode: audit\n",
}

type generator struct{ *rand.Rand }

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// next makes a text: a policy or list with some changes, in block or flow style, with any line breaks.
func (g *generator) next() (kind, text string) {
	if g.IntN(4) == 0 {
		kind, text = "repository", g.policy()
	} else {
		seed := pick(g, seeds)
		kind, text = seed.kind, seed.text
	}
	for range g.IntN(4) {
		text = g.change(text)
	}
	switch g.IntN(24) {
	case 0:
		text = strings.ReplaceAll(text, "\n", "\r\n")
	case 1:
		text = strings.ReplaceAll(text, "\n", "\r")
	case 2:
		text = strings.Replace(text, "\n", pick(g, []string{"\u0085", "\u2028", "\u2029"}), 1+g.IntN(3))
	case 3:
		text = strings.TrimRight(text, "\n")
	case 4:
		text = "\ufeff" + text
	case 5:
		text = strings.ReplaceAll(text, "  ", pick(g, []string{" ", "\t", "   "}))
	}
	return kind, text
}

// change puts a piece in, leaves some characters out, doubles or moves them, or repeats a line.
func (g *generator) change(text string) string {
	runes := []rune(text)
	at := g.IntN(len(runes) + 1)
	end := min(len(runes), at+g.IntN(4))
	before, part, after := string(runes[:at]), string(runes[at:end]), string(runes[end:])
	switch g.IntN(8) {
	case 0, 1, 2:
		return before + pick(g, pieces) + part + after
	case 3:
		return before + after
	case 4:
		return before + pick(g, pieces) + after
	case 5:
		return before + part + part + after
	case 6:
		lines := strings.SplitAfter(text, "\n")
		from, to := g.IntN(len(lines)), g.IntN(len(lines))
		lines[to] = strings.Repeat(" ", g.IntN(3)) + lines[from]
		return strings.Join(lines, "")
	default:
		return g.quoteOtherwise(text)
	}
}

// quoteOtherwise writes the value of one line in another style.
func (g *generator) quoteOtherwise(text string) string {
	lines := strings.SplitAfter(text, "\n")
	at := g.IntN(len(lines))
	key, value, found := strings.Cut(strings.TrimSuffix(lines[at], "\n"), ": ")
	if found && value != "" {
		indent := strings.Repeat(" ", len(key)-len(strings.TrimLeft(key, " "))+1+g.IntN(3))
		lines[at] = key + ": " + g.styled(strings.Trim(value, `"'`), indent) + "\n"
	}
	return strings.Join(lines, "")
}

func (g *generator) styled(value, indent string) string {
	switch g.IntN(7) {
	case 0:
		return "'" + strings.ReplaceAll(value, "'", "''") + "'"
	case 1:
		return fmt.Sprintf("%q", value)
	case 2:
		return pick(g, []string{"|", ">", "|-", ">-", "|+", ">+"}) + "\n" + indent + strings.ReplaceAll(value, " ", "\n"+indent)
	case 3:
		return "\"" + strings.ReplaceAll(value, "e", pick(g, []string{"\\x65", "\\u0065", "e\\\n" + indent, "\\e", "\\L", "\\N"})) + "\""
	case 4:
		return "&a " + value + "\n" + "app: *a"
	case 5:
		return pick(g, scalars)
	default:
		return value
	}
}

// policy makes a policy in which every part is of some style.
func (g *generator) policy() string {
	var text strings.Builder
	value := func() string {
		return g.styled(pick(g, []string{"https://a.example", "repo:a/b:ref:refs/heads/main", "a b c", "[a-z]+", "main|dev", "it's", "a: b", "a #b", "42", "", ".*", "#", "-", "?a", "*"}), strings.Repeat(" ", 1+g.IntN(4)))
	}
	fmt.Fprintf(&text, "issuer: %s\nsubject: %s\n", value(), value())
	name := func() string {
		return pick(g, []string{"ref", "'ref'", "\"a\\tb\"", "a b", "1", "true", "a.b/c", "y", "é", "? x", "&k k", pick(g, scalars)})
	}
	if g.IntN(2) == 0 {
		fmt.Fprintf(&text, "claim_pattern: {%s: %s, %s: %s}\n", name(), pick(g, []string{"a", "'b'", "[c]", "a:b", "\"d\\\n e\"", pick(g, scalars)}), name(), "x")
	} else {
		indent := strings.Repeat(" ", 1+g.IntN(3))
		fmt.Fprintf(&text, "claim_pattern:\n%s%s: %s\n%s%s: %s\n", indent, name(), value(), indent, name(), value())
	}
	text.WriteString("permissions:\n  contents: read\n")
	return text.String()
}
