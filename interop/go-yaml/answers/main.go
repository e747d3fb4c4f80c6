// Makes policies and lists of trusted issuers, and writes what Go reads in them, one JSON object a line.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"log"
	"math/rand/v2"
	"os"

	"sigs.k8s.io/yaml"
)

// The Go service's types, as far as reading goes. It has a field for each permission instead of a map.
type policy struct {
	Issuer          string            `json:"issuer,omitempty"`
	IssuerPattern   string            `json:"issuer_pattern,omitempty"`
	Subject         string            `json:"subject,omitempty"`
	SubjectPattern  string            `json:"subject_pattern,omitempty"`
	Audience        string            `json:"audience,omitempty"`
	AudiencePattern string            `json:"audience_pattern,omitempty"`
	ClaimPattern    map[string]string `json:"claim_pattern,omitempty"`
	App             string            `json:"app,omitempty"`
	AppPattern      string            `json:"app_pattern,omitempty"`
	Permissions     map[string]string `json:"permissions,omitempty"`
}

type organizationPolicy struct {
	policy       `json:",inline"`
	Repositories []string `json:"repositories,omitempty"`
}

// Go looks for the type of an embedded struct's field in the wrong place, so it takes no plain boolean
// or integer for text in an organization's policy. This type has the same fields without embedding.
type flatPolicy struct {
	Issuer          string            `json:"issuer,omitempty"`
	IssuerPattern   string            `json:"issuer_pattern,omitempty"`
	Subject         string            `json:"subject,omitempty"`
	SubjectPattern  string            `json:"subject_pattern,omitempty"`
	Audience        string            `json:"audience,omitempty"`
	AudiencePattern string            `json:"audience_pattern,omitempty"`
	ClaimPattern    map[string]string `json:"claim_pattern,omitempty"`
	App             string            `json:"app,omitempty"`
	AppPattern      string            `json:"app_pattern,omitempty"`
	Permissions     map[string]string `json:"permissions,omitempty"`
	Repositories    []string          `json:"repositories,omitempty"`
}

type list struct {
	Mode           string   `json:"mode,omitempty"`
	Issuers        []string `json:"issuers,omitempty"`
	IssuerPatterns []string `json:"issuer_patterns,omitempty"`
}

type answer struct {
	// repository, organization or list
	Kind string `json:"kind"`
	Text string `json:"text"`
	// What Go reads. Absent if it refuses the text.
	Fields any `json:"fields,omitempty"`
	// It reads them only because the type was flat.
	Flat bool `json:"flat,omitempty"`
}

func main() {
	log.SetFlags(0)
	texts := flag.Int("texts", 20000, "how many texts to make")
	seed := flag.Uint64("seed", 1, "seed of the random numbers")
	flag.Parse()

	g := &generator{rand.New(rand.NewPCG(*seed, 0))}
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	write := func(kind, text string) {
		if err := encoder.Encode(read(kind, text)); err != nil {
			log.Fatal(err)
		}
	}
	for _, value := range scalars {
		write("repository", "issuer: "+value+"\n")
		write("repository", "claim_pattern:\n  "+value+": a\n")
		write("repository", "claim_pattern: {"+value+": a}\n")
		write("organization", "repositories: ["+value+"]\n")
	}
	for _, text := range fixed {
		write("repository", text)
	}
	for range *texts {
		write(g.next())
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

func read(kind, text string) answer {
	a := answer{Kind: kind, Text: text}
	var target any
	switch kind {
	case "repository":
		target = &policy{}
	case "organization":
		target = &organizationPolicy{}
	default:
		target = &list{}
	}
	if yaml.UnmarshalStrict([]byte(text), target) == nil {
		a.Fields = target
		return a
	}
	flat := &flatPolicy{}
	if kind == "organization" && yaml.UnmarshalStrict([]byte(text), flat) == nil {
		a.Fields, a.Flat = flat, true
	}
	return a
}
