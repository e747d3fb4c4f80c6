package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Makes files that are mostly right, with a few changes.
type generator struct{ *rand.Rand }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// One time in n.
func (g *generator) once(n int) bool { return g.IntN(n) == 0 }

func (g *generator) text() string {
	var b strings.Builder
	if g.once(12) {
		b.WriteString(g.pick("# Apps\n", "---\n", "%YAML 1.1\n---\n", "\n"))
	}
	fmt.Fprintf(&b, "%s:\n", g.key("orgs"))
	for o := range 1 + g.IntN(3) {
		if g.once(6) {
			fmt.Fprintf(&b, "  - {%s: %s, %s: [%s]}\n", g.key("name"), g.owner(o), g.key("apps"), g.flow(o))
			continue
		}
		fmt.Fprintf(&b, "  - %s: %s\n    %s:", g.key("name"), g.owner(o), g.key("apps"))
		if g.once(40) {
			fmt.Fprintf(&b, " %s\n", g.pick("[]", "null", "", "{}", "5"))
			continue
		}
		b.WriteString("\n")
		for a := range 1 + g.IntN(3) {
			for i, line := range g.app(o, a) {
				fmt.Fprintf(&b, "      %s %s\n", map[bool]string{true: "-", false: " "}[i == 0], line)
			}
		}
	}
	text := b.String()
	if g.once(30) {
		text += g.pick("...\n", "---\norgs: []\n", "...\n---\nx\n", "other: 1\n", "orgs: []\n", "# end\n", "Orgs: []\n")
	}
	if g.once(8) {
		text = g.mutate(text)
	}
	return text
}

// A key, perhaps in other letter case or misspelt.
func (g *generator) key(name string) string {
	switch g.IntN(60) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.ToUpper(name[:1]) + name[1:]
	case 2:
		return `"` + name + `"`
	case 3:
		return g.pick(name+"s", strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(name, "_", ""), name+".x", "'"+name+" '")
	}
	return name
}

func (g *generator) owner(n int) string {
	if g.once(5) {
		return g.pick(`"*"`, "'*'", "ORG-A", "org-a", "'org-a'", "${ORG}", `"${ORG}"`, "''", "null", "~", "5", "true", "a b", "org/x", "${UNSET}",
			"${EMPTY}", "$ORG", "x${EMPTY}y", "!!str org-t", "&o org-x", "*o", "[a]", "{a: b}", "Über", "org-a # comment", "|-\n      org-l")
	}
	return fmt.Sprintf("org-%d", n)
}

func (g *generator) id(o, a int) string {
	if g.once(8) {
		return g.pick("0", "1", "-1", "'7'", "${UNSET}", "1.0", "1e3", "0x10", "010", "0o10", "1_000", "9223372036854775807",
			"9223372036854775808", "null", "", "true", "abc", "+5", "[1]", "12 # comment")
	}
	return fmt.Sprint(100*o + a + 1)
}

func (g *generator) name() string {
	return g.pick("ci", "'ci-2'", "${NAME}", "prefix-${NAME}", "''", "null", "${EMPTY}", "'12'", "12", "a b", "${DOLLAR}", "$NAME", "${NAME", "${}",
		"x${A${NAME}}", "\"a\\tb\"", "yes", "'1.5'", "0x1", "+1", "'+1'", "' a'", fmt.Sprintf("n%d", g.IntN(1000)))
}

func (g *generator) secret() (string, string) {
	if g.once(12) {
		return g.pick("private_key", "kms_key", "private_key_file", "key"), g.pick("${PEM}", "''", "null", "${UNSET}", "${EMPTY}", "[x]", "5", "x")
	}
	if g.once(8) {
		return "kms_key", g.pick("${KMS}", `"${KMS}"`, "${EMPTY}${KMS}")
	}
	return "private_key", g.pick("${PEM}", `"${PEM}"`, "'${PEM}'", "${EMPTY}${PEM}", ">-\n          ${PEM}", "|\n          ${PEM}")
}

func (g *generator) app(o, a int) []string {
	lines := []string{g.key("app_id") + ": " + g.id(o, a)}
	if g.once(3) {
		lines = append(lines, g.key("app_name")+": "+g.name())
	}
	key, value := g.secret()
	lines = append(lines, g.key(key)+": "+value)
	if g.once(40) {
		key, value := g.secret()
		lines = append(lines, key+": "+value)
	}
	if g.once(60) {
		lines = append(lines, g.pick("<<: {app_name: merged}", "unknown: 1", "APP_ID: 9", "# comment", ""))
	}
	if g.once(50) {
		lines = lines[g.IntN(len(lines)):]
	}
	g.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return lines
}

func (g *generator) flow(o int) string {
	return fmt.Sprintf("{%s: %s, %s: '${PEM}'}", g.key("app_id"), g.id(o, 50), g.key("private_key"))
}

// Changes a character.
func (g *generator) mutate(text string) string {
	at := g.IntN(len(text))
	return text[:at] + g.pick("", " ", "\n", "\t", ":", "-", "'", "#", "x", "{", "]", "&", "*", "\r\n") + text[min(at+g.IntN(2), len(text)):]
}
