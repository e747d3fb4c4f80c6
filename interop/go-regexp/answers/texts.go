package main

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
)

// texts makes texts that match a pattern, or nearly do.
func (g *generator) texts(pattern string) []string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	texts := []string{"", pattern}
	for range 5 {
		var text strings.Builder
		g.match(&text, tree)
		made := text.String()
		texts = append(texts, made, g.changeText(made))
	}
	texts = append(texts, g.last...)
	texts = slices.DeleteFunc(texts, func(text string) bool { return len(text) > 4096 || !comparable(text) })
	if len(texts) > 3 {
		g.last = texts[2:4]
	}
	return texts
}

// comparable leaves out characters that the Unicode version of one side may not know.
func comparable(text string) bool {
	for _, c := range text {
		if !isComparable(c) {
			return false
		}
	}
	return true
}

func isComparable(c rune) bool {
	return c != unicode.ReplacementChar && !unicode.Is(unicode.Cn, c) && !unicode.Is(newer, c)
}

// newer are characters that Unicode 16, which Rust's engine knows, has in another class or with another
// case than Go's Unicode 15. Of U+0345 Go has no other case in the one class LC.
var newer = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x019B, Hi: 0x019B, Stride: 1}, {Lo: 0x0264, Hi: 0x0264, Stride: 1}, {Lo: 0x0345, Hi: 0x0345, Stride: 1},
		{Lo: 0x0390, Hi: 0x0390, Stride: 1}, {Lo: 0x03B0, Hi: 0x03B0, Stride: 1}, {Lo: 0x1FD3, Hi: 0x1FD3, Stride: 1},
		{Lo: 0x1FE3, Hi: 0x1FE3, Stride: 1}, {Lo: 0xFB05, Hi: 0xFB06, Stride: 1},
	},
	R32: []unicode.Range32{{Lo: 0x1171E, Hi: 0x1171E, Stride: 1}},
}

func (g *generator) match(text *strings.Builder, re *syntax.Regexp) {
	if text.Len() > 2048 {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, c := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 {
				for range g.IntN(3) {
					c = unicode.SimpleFold(c)
				}
			}
			text.WriteRune(c)
		}
	case syntax.OpCharClass:
		if len(re.Rune) > 0 {
			text.WriteRune(g.member(re.Rune))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		text.WriteRune(pick(g, []rune("abk/1 é日\u212a:")))
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range re.Sub {
			g.match(text, sub)
		}
	case syntax.OpAlternate:
		g.match(text, pick(g, re.Sub))
	case syntax.OpStar:
		g.repeat(text, re.Sub[0], 0, -1)
	case syntax.OpPlus:
		g.repeat(text, re.Sub[0], 1, -1)
	case syntax.OpQuest:
		g.repeat(text, re.Sub[0], 0, 1)
	case syntax.OpRepeat:
		g.repeat(text, re.Sub[0], re.Min, re.Max)
	case syntax.OpBeginLine, syntax.OpEndLine:
		if g.IntN(2) == 0 {
			text.WriteByte('\n')
		}
	}
}

func (g *generator) repeat(text *strings.Builder, re *syntax.Regexp, least, most int) {
	if most < 0 || most > least+3 {
		most = least + 3
	}
	for range least + g.IntN(most-least+1) {
		g.match(text, re)
	}
}

func (g *generator) member(ranges []rune) rune {
	for range 8 {
		at := 2 * g.IntN(len(ranges)/2)
		low, high := ranges[at], ranges[at+1]
		// Large ranges are mostly of characters that are like each other; their ends are not.
		c := pick(g, []rune{low, high, low + g.Int32N(high-low+1), low + min(high-low, g.Int32N(128))})
		if isComparable(c) {
			return c
		}
	}
	return 'a'
}

func (g *generator) changeText(text string) string {
	runes := []rune(text)
	at := g.IntN(len(runes) + 1)
	end := min(len(runes), at+1)
	switch g.IntN(4) {
	case 0:
		return string(runes[:at]) + string(runes[end:])
	case 1:
		return string(runes[:at]) + string(pick(g, []rune("aAbkKsS1/:_ -.\n{}\u212aſéσς&~[]"))) + string(runes[at:])
	case 2:
		return string(runes[:end]) + string(runes[at:])
	default:
		return strings.Map(g.otherCase, text)
	}
}

func (g *generator) otherCase(c rune) rune {
	if g.IntN(2) == 0 {
		return unicode.SimpleFold(c)
	}
	return c
}

// unicodeClasses has a pattern for each Unicode class, in each letter case, and texts of the characters
// at the ends of its ranges. So a class of ours that is wider or narrower shows.
func unicodeClasses() []answer {
	var answers []answer
	tables := maps.Clone(unicode.Categories)
	maps.Copy(tables, unicode.Scripts)
	for alias, category := range unicode.CategoryAliases {
		tables[alias] = unicode.Categories[category]
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		texts := ends(tables[name])
		for _, form := range []string{`\p{NAME}`, `\P{NAME}`, `[^\p{NAME}]`, `(?i)\p{NAME}`, `(?i)[\P{NAME}k]`} {
			a := answer{Pattern: strings.Replace(form, "NAME", name, 1)}
			compiled, err := compile(a.Pattern)
			if a.Error = err != nil; !a.Error {
				a.Texts = texts
				for i, text := range texts {
					if compiled.MatchString(text) {
						a.Matches = append(a.Matches, i)
					}
				}
			}
			answers = append(answers, a)
		}
	}
	return answers
}

// ends has the characters at both sides of each end of a table's ranges, and those of other case.
func ends(table *unicode.RangeTable) []string {
	found := map[rune]bool{}
	add := func(c rune) {
		for _, c := range []rune{c, unicode.SimpleFold(c)} {
			if c >= 0 && c <= unicode.MaxRune && !(0xD800 <= c && c <= 0xDFFF) && isComparable(c) {
				found[c] = true
			}
		}
	}
	for _, r := range table.R16 {
		add(rune(r.Lo) - 1)
		add(rune(r.Lo))
		add(rune(r.Hi))
		add(rune(r.Hi) + 1)
	}
	for _, r := range table.R32 {
		add(rune(r.Lo) - 1)
		add(rune(r.Lo))
		add(rune(r.Hi))
		add(rune(r.Hi) + 1)
	}
	texts := make([]string, 0, len(found))
	for _, c := range slices.Sorted(maps.Keys(found)) {
		texts = append(texts, string(c))
	}
	return texts
}
