// Makes files of Apps, and writes what the libraries of the Go service read in them, one JSON object a line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// The fields of the Go service's file.
type file struct {
	Orgs []org `mapstructure:"orgs" json:"orgs"`
}

type org struct {
	Name string `mapstructure:"name" json:"name"`
	Apps []app  `mapstructure:"apps" json:"apps"`
}

type app struct {
	ID      int64  `mapstructure:"app_id" json:"app_id"`
	Name    string `mapstructure:"app_name" json:"app_name"`
	KMSKey  string `mapstructure:"kms_key" json:"-"`
	KeyFile string `mapstructure:"private_key_file" json:"-"`
	Key     string `mapstructure:"private_key" json:"-"`
}

type answer struct {
	Text string `json:"text"`
	// What Go reads. Absent if it refuses the text.
	File *file `json:"file,omitempty"`
}

func main() {
	log.SetFlags(0)
	texts := flag.Int("texts", 5000, "how many texts to make")
	seed := flag.Uint64("seed", 1, "seed of the random numbers")
	flag.Parse()
	for name, value := range variables {
		os.Setenv(name, value)
	}
	os.Unsetenv("UNSET")

	g := &generator{rand.New(rand.NewPCG(*seed, 0))}
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for range *texts {
		text := g.text()
		read, err := parse(text)
		if err != nil {
			read = nil
		}
		if err := encoder.Encode(answer{text, read}); err != nil {
			log.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}

// The test has the same names; its keys are real.
var variables = map[string]string{"PEM": "key", "KMS": "kms", "NAME": "named", "ORG": "Org-V", "EMPTY": "", "DOLLAR": "${NAME}"}

var reference = regexp.MustCompile(`\$\{(\w+)\}`)

type expanding struct{ *yaml.YAML }

func (p expanding) Unmarshal(text []byte) (map[string]any, error) {
	read, err := p.YAML.Unmarshal(text)
	if err == nil {
		expand(read)
	}
	return read, err
}

func expand(value any) any {
	switch value := value.(type) {
	case string:
		return reference.ReplaceAllStringFunc(value, func(match string) string {
			return os.Getenv(match[2 : len(match)-1])
		})
	case map[string]any:
		for key := range value {
			value[key] = expand(value[key])
		}
	case []any:
		for index := range value {
			value[index] = expand(value[index])
		}
	}
	return value
}

func parse(text string) (*file, error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider([]byte(text)), expanding{yaml.Parser()}); err != nil {
		return nil, err
	}
	var read *file
	err := k.UnmarshalWithConf("", &read, koanf.UnmarshalConf{
		Tag:           "mapstructure",
		DecoderConfig: &mapstructure.DecoderConfig{ErrorUnused: true, Result: &read},
	})
	if err != nil {
		return nil, err
	}
	if read == nil {
		return nil, errors.New("empty")
	}
	return read, read.check()
}

func (f *file) check() error {
	owners, ids, names := map[string]bool{}, map[int64]bool{}, map[string]bool{}
	if len(f.Orgs) == 0 {
		return errors.New("no organization")
	}
	for o := range f.Orgs {
		org := &f.Orgs[o]
		org.Name = strings.ToLower(org.Name)
		if org.Name == "" || owners[org.Name] || len(org.Apps) == 0 {
			return errors.New("organization")
		}
		owners[org.Name] = true
		for _, app := range org.Apps {
			sources := 0
			for _, source := range []string{app.KMSKey, app.KeyFile, app.Key} {
				if source != "" {
					sources++
				}
			}
			if app.ID == 0 || ids[app.ID] || sources != 1 {
				return errors.New("App")
			}
			ids[app.ID] = true
			if app.Name != "" {
				if _, err := strconv.ParseInt(app.Name, 10, 64); err == nil || names[app.Name] {
					return errors.New("name")
				}
				names[app.Name] = true
			}
		}
	}
	return nil
}
