// Makes patterns and texts, and writes what Go's regexp says of them, one JSON object a line.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"log"
	"math/rand/v2"
	"os"
	"regexp"
)

type answer struct {
	Pattern string `json:"pattern"`
	// Go refuses the pattern.
	Error bool     `json:"error,omitempty"`
	Texts []string `json:"texts,omitempty"`
	// Indices of the texts that match.
	Matches []int `json:"matches,omitempty"`
}

func main() {
	log.SetFlags(0)
	patterns := flag.Int("patterns", 20000, "how many patterns to make")
	seed := flag.Uint64("seed", 1, "seed of the random numbers")
	flag.Parse()

	g := &generator{Rand: rand.New(rand.NewPCG(*seed, 0))}
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, pattern := range fixed {
		write(encoder, g.answer(pattern))
	}
	if *seed == 1 {
		for _, line := range unicodeClasses() {
			write(encoder, line)
		}
	}
	for range *patterns {
		write(encoder, g.answer(g.next()))
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

func write(encoder *json.Encoder, a answer) {
	if err := encoder.Encode(a); err != nil {
		log.Fatal(err)
	}
}

// compile does what the Go service does: a pattern is compiled by itself first, then with anchors.
func compile(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile("^(?:" + pattern + ")$")
}

func (g *generator) answer(pattern string) answer {
	a := answer{Pattern: pattern}
	compiled, err := compile(pattern)
	if err != nil {
		a.Error = true
		return a
	}
	a.Texts = g.texts(pattern)
	for i, text := range a.Texts {
		if compiled.MatchString(text) {
			a.Matches = append(a.Matches, i)
		}
	}
	return a
}
