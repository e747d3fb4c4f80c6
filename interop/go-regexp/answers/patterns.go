package main

import (
	"math/rand/v2"
	"strings"
)

// fixed are the patterns of which a difference was found once, or is near.
var fixed = []string{
	`v[0-9]{1, 3}`, `a{02}`, `a{1`, `a{1,`, `a{,2}`, `{`, `}`, `{{NAME}}`, `a{0}`, `a{1000}`, `a{1001}`, `(a{32}){32}`,
	`((a{10}){10}){10}`, `(a{0}){1001}`, `(a*){1000}`, `\101`, `\0`, `\08`, `\1`, `\18`, `[\1]`, `[\101]`, `\8`,
	`\Qa.b\E`, `\Qa.b`, `\Qab\E*`, `\Q\E*`, `a\Q\E*`, `a*\Q\E*`, `[\Qa]`, `[a\E]`, `\E`, `[a&&b]`, `[a~~b]`, `[a--b]`,
	`[!--]`, `[--a]`, `[+--]`, `[a-z&&[^b]]`, `[[a]]`, `[[:word:]]`, `[[:^word:]]`, `[[:nope:]]`, `[[:alpha:]`, `[[:`, `[:alpha:]`,
	`[]a]`, `[^]a]`, `[]`, `[^]`, `[a-]`, `[-a]`, `[a-b-c]`, `[\d-z]`, `[a-\d]`, `[b-a]`, `[\pL-z]`, `[^\x00-\x{10FFFF}]`,
	`\pN`, `\p{Greek}`, `\p{^Greek}`, `\P{^Greek}`, `\p{greek}`, `\pC`, `\p{Cs}`, `\P{Cs}`, `\p{LC}`, `\p{Any}`, `\p{Assigned}`,
	`\p{ASCII}`, `\p{Old_Italic}`, `\p{}`, `\p`, `\pq`, `\z`, `\Z`, `\A`, `\b`, `\B`, `a\Bb`, `\Ba`, `é\Bé`, `\C`, `\_`, `\<`, `\>`,
	`\b{start}`, `\é`, `\u0041`, `\x`, `\x4`, `\x41`, `\x{41}`, `\x{}`, `\x{110000}`, `\x{D800}`, `[\x{D700}-\x{DFFF}]`, `[^\x{D800}]`,
	`(?P<n>a)`, `(?<n>a)`, `(?P<n>a)(?P<n>b)`, `(?P<é>a)`, `(?P<>a)`, `(?P<n`, `(?'n'a)`, `(?P=n)`, `(?s:.)`, `(?U)a*`, `(?U:a+?)`,
	`(?i)k`, `(?i)\w`, `(?i)[^k]`, `(?i)\W`, `(?i:σ)`, `(?i)[[:^lower:]]`, `(?i)\P{Lu}`, `(?i)ß`, `(?i)İ`, `(?i-i)a`, `(?)`, `(?-)`,
	`(?-i)a`, `(?i-:a)`, `(?x)a b`, `(?u)a`, `(?R)a`, `(?#a)`, `(?=a)`, `(?!a)`, `(?<=a)b`, `(?<!a)b`, `(?>a)`, `(?i`, `(?`,
	`a**`, `a*?`, `a*??`, `a*+`, `a{2}{3}`, `a{2}*`, `a*{`, `a*(?i)*`, `a(?i)*`, `(?i)*`, `*`, `|*`, `(*)`, `^*`, `$*`, `\b+`, `()*`,
	`(|a)*`, `(a|)*`, `(?:a*)*`, `(?m)^a$`, `(?m)a$|^b`, `a$b`, `a^b`, `a)|(`, `a)|(b`, `(a`, `a|b)`, `\`, `[a`, `[a\`, ``, `|`, `||`,
	`(?m:^)*a`, `(a{1,2}){3}`, `a{2,1}`, `a{1,1000}`, `a{1,1001}`, `a{99999999999}`, `a{1,99999999999}`, "a\nb", "\x00", "a\\\nb",
	`(()()()()){1000}`, strings.Repeat(`(`, 60) + strings.Repeat(`)`, 60), strings.Repeat(`()`, 4000), strings.Repeat(`(|`, 30) + strings.Repeat(`)*`, 30),
}

// real are patterns as policies hold them, to be changed at random.
var real = []string{
	`repo:acme/.*:ref:refs/heads/main`, `repo:acme/(api|web):ref:refs/tags/v[0-9]+\.[0-9]+\.[0-9]+`,
	`acme/workflows/\.github/workflows/deploy\.yaml@refs/heads/(main|release-.*)`, `refs/heads/release-\d{4}-\d{2}`,
	`system:serviceaccount:[a-z0-9-]+:[^:]+`, `https://[a-z0-9-]+\.oidc\.example\.com/id/[A-F0-9]{32}`, `(?i)true|yes`,
	`^project_path:group/[^/]+:ref_type:branch:ref:main$`, `.+@(?:example|test)\.com`, `pull_request|push`, `\w+-\w+`,
}

// tokens are pieces of syntax, whole and broken.
var tokens = strings.Split(`( ) (?: (?i) (?i: (?-i) (?s) (?s: (?m) (?m: (?U) (?U: (?x) (?P<n> (?<n> (?= | || * + ? *? +? ?? {2} {2,} {1,3} {0} {02} {1,3}? {1,}? `+
	`{ } {, {,3} {1 {1, {3,1} {1001} {x} [ ] [^ [^] [] []a] [a-c] [^a-c] [a-] [-a] [--a] [!--] [a&&b] [a--b] [a~~b] [[a]] [[:alpha:]] [[:^digit:]] [[:punct:]] `+
	`[[:x:]] [: :] [\d] [\W-z] [\D\s] [\pL] [^\PL] [\Q] [\101] [\x41-\x5a] && -- ~~ - ^ $ \A \z \Z \b \B \C \d \D \w \W \s \S \pL \PL \pN \p{Greek} \P{Lu} \p{^Lu} `+
	`\p{Nope} \p{ \Q \E \Qa.b\E \101 \0 \08 \1 \8 \x41 \x{41} \x{4 \x \u \. \/ \- \_ \a \n \t \e \\ \ . .* .+ a b k K S s A B 0 1 / : _ é ß ẞ σ ς Σ ſ K ǆ ǅ 日 # & ~ , <`, " ")

type generator struct {
	*rand.Rand
	last []string
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// next makes a pattern: by the grammar, by changing another one, or of tokens in any order.
func (g *generator) next() string {
	var pattern string
	switch n := g.IntN(10); {
	case n < 4:
		pattern = g.alternation(3)
	case n < 7:
		pattern = g.alternation(2)
		for range 1 + g.IntN(3) {
			pattern = g.change(pattern)
		}
	case n < 9:
		pattern = pick(g, real)
		if g.IntN(3) == 0 {
			pattern = pick(g, fixed[:len(fixed)-4])
		}
		for range 1 + g.IntN(3) {
			pattern = g.change(pattern)
		}
	default:
		for range 1 + g.IntN(6) {
			pattern += pick(g, tokens)
		}
	}
	if g.IntN(20) == 0 {
		pattern = " " + pattern
	}
	return pattern
}

func (g *generator) alternation(depth int) string {
	parts := []string{g.concatenation(depth)}
	for g.IntN(4) == 0 {
		parts = append(parts, g.concatenation(depth))
	}
	return strings.Join(parts, "|")
}

func (g *generator) concatenation(depth int) string {
	var text strings.Builder
	for range g.IntN(4) + g.IntN(2) {
		text.WriteString(g.atom(depth))
		text.WriteString(g.repetition())
	}
	return text.String()
}

func (g *generator) repetition() string {
	if g.IntN(5) < 3 {
		return ""
	}
	count := pick(g, []string{"*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "{0}", "{1,}", "{1, 3}", "{02}", "{,2}", "{1", "{ 2}", "{2 }", "{1,03}", "{12}"})
	if g.IntN(6) == 0 {
		count += "?"
	}
	return count
}

func (g *generator) atom(depth int) string {
	switch n := g.IntN(20); {
	case n < 8:
		return g.literal()
	case n < 11:
		return g.class()
	case n < 13:
		return pick(g, []string{".", `\d`, `\w`, `\s`, `\D`, `\W`, `\S`, `\pL`, `\PL`, `\p{Greek}`, `\p{Lu}`, `\P{Ll}`, `\p{^Lu}`, `\p{N}`, `\p{lowercase letter}`})
	case n < 14:
		return pick(g, []string{"^", "$", `\A`, `\z`, `\b`, `\B`})
	case n < 15:
		return `\Q` + pick(g, []string{"", "a.b", "(", "[a", `\`, "*", "a*", "{2}"}) + `\E`
	case n < 16:
		return pick(g, []string{"(?i)", "(?s)", "(?m)", "(?-i)", "(?U)", "(?i-s)", "(?)"})
	case depth == 0:
		return g.literal()
	default:
		return pick(g, []string{"(", "(", "(?:", "(?i:", "(?s:", "(?m:", "(?-i:", "(?P<n>", "(?<m_1>", "(?is-m:", "(?U:"}) + g.alternation(depth-1) + ")"
	}
}

func (g *generator) literal() string {
	const plain = "aaabbckKsS01/:_- .,&~#@\"'<>=!éßσςΣſKǆǅİı日😀\n"
	switch g.IntN(8) {
	case 0:
		return `\` + string(pick(g, []rune("./-_{}[]()*+?|^$\\:~#& <>\"afnrtv")))
	case 1:
		return pick(g, []string{`\x61`, `\x{6B}`, `\x{212A}`, `\x{1F600}`, `\141`, `\0`, `\12`, `\0603`, "{", "}", "]", "{{", "}}", "{a}"})
	default:
		return string(pick(g, []rune(plain)))
	}
}

func (g *generator) class() string {
	var text strings.Builder
	text.WriteString(pick(g, []string{"[", "[", "[^", "[]", "[^]", "[-", "[^-"}))
	for range 1 + g.IntN(4) {
		switch g.IntN(8) {
		case 0, 1:
			text.WriteString(pick(g, []string{"a-c", "0-9", "A-Z", "a-z", "!--", "--0", "+--", "&-/", " -~", "α-ω", "À-ÿ", "a-", `\x00-\x1f`, `\.-\:`, `\x{D700}-\x{E000}`, "k-K", "A-k"}))
		case 2:
			text.WriteString(pick(g, []string{"&&", "--", "~~", "[", "[a", "[^b]", "[:", ":]", "&", "~", "-", "^", "||"}))
		case 3:
			text.WriteString(pick(g, []string{`\d`, `\W`, `\s`, `\S`, `\pL`, `\P{Lu}`, `\p{Greek}`, "[:alpha:]", "[:^space:]", "[:lower:]", "[:^upper:]", "[:punct:]", "[:word:]", `\-`, `\]`, `\^`, `\\`, `\n`, `\101`}))
		default:
			text.WriteString(string(pick(g, []rune("abckKsS01/:._-(){}*+?|$#éßσſ日"))))
		}
	}
	text.WriteString("]")
	return text.String()
}

// change makes one change: a token put in, a part left out, doubled or moved, or a character replaced.
func (g *generator) change(pattern string) string {
	runes := []rune(pattern)
	at := g.IntN(len(runes) + 1)
	end := min(len(runes), at+g.IntN(4))
	before, part, after := string(runes[:at]), string(runes[at:end]), string(runes[end:])
	switch g.IntN(6) {
	case 0, 1:
		return before + pick(g, tokens) + part + after
	case 2:
		return before + after
	case 3:
		return before + part + part + after
	case 4:
		return before + pick(g, tokens) + after
	default:
		return before + after + part
	}
}
