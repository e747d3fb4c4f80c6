// Sends each request of requests.yaml to the server's REST and to a gateway (grpc-gateway v2, generated
// from the same proto files) in front of the server's gRPC, and compares the answers. Run by ../run,
// which says in the environment where everything is.
package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.yaml.in/yaml/v3"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	_ "octo-sts.example/interop/gateway/condition"
	"octo-sts.example/interop/gateway/oidc"
)

type request struct {
	Name string
	// GET and /sts/exchange where they are not given.
	Method, Path string
	// After `?`, as it stands.
	Query string
	// The content type.
	Type string
	Body string
	// So many bytes of a parameter that means nothing are put before the body.
	Pad     int
	Headers []string
	// Claims of the token, as a query; `none` is no token.
	Token string
	// What the server answers.
	Answer string
}

type difference struct {
	Name, Why string
	// What the gateway answers, by the request's name.
	Gateway map[string]string
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// A gateway as the Go service runs it: with the library's defaults.
func gateway(t *testing.T, server string) string {
	t.Helper()
	mux := runtime.NewServeMux()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if err := oidc.RegisterSecurityTokenServiceHandlerFromEndpoint(t.Context(), mux, strings.TrimPrefix(server, "http://"), options); err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(mux)
	t.Cleanup(listening.Close)
	return listening.URL
}

func fetch(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("no token: %d, %v", response.StatusCode, err)
	}
	return string(body)
}

// Written by hand, since Go's client would mend what is malformed on purpose.
func send(t *testing.T, server string, r request, token string) answer {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	target := r.Path
	if r.Query != "" {
		target += "?" + r.Query
	}
	body := r.Body
	if r.Pad > 0 {
		body = "x=" + strings.Repeat("x", r.Pad) + "&" + body
	}
	lines := []string{fmt.Sprintf("%s %s HTTP/1.1", r.Method, target), "host: localhost", "connection: close"}
	if token != "" {
		lines = append(lines, "authorization: Bearer "+token)
	}
	if r.Type != "" {
		lines = append(lines, "content-type: "+r.Type)
	}
	if body != "" {
		lines = append(lines, fmt.Sprintf("content-length: %d", len(body)))
	}
	lines = append(lines, r.Headers...)
	// A server may answer before it has read everything.
	go io.WriteString(connection, strings.Join(lines, "\r\n")+"\r\n\r\n"+body)
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: r.Method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	return parse(t, response, text)
}

// An answer without what differs from one time to the next.
type answer struct {
	status int
	kind   string
	body   any
}

var (
	token = regexp.MustCompile(`ghs_[A-Za-z0-9]+`)
	time  = regexp.MustCompile(`"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"`)
)

func parse(t *testing.T, response *http.Response, text []byte) answer {
	t.Helper()
	kind, _, _ := strings.Cut(response.Header.Get("content-type"), ";")
	got := answer{response.StatusCode, kind, string(text)}
	if kind == "application/json" && len(text) > 0 {
		text = time.ReplaceAll(token.ReplaceAll(text, []byte("ghs_")), []byte(`"T"`))
		if err := json.Unmarshal(text, &got.body); err != nil {
			t.Fatalf("this is no JSON: %s", text)
		}
	}
	return got
}

// In a line: the status, and the reply's members, or the error's code, its reason where it has one,
// else its message.
func (a answer) String() string {
	members, isObject := a.body.(map[string]any)
	if !isObject {
		return strings.TrimSpace(fmt.Sprintf("%d %v", a.status, a.body))
	}
	code, isError := members["code"]
	if !isError {
		names := []string{}
		for name := range members {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Sprintf("%d %s", a.status, strings.Join(names, " "))
	}
	details, _ := members["details"].([]any)
	for _, detail := range details {
		if reason, found := detail.(map[string]any)["reason"]; found {
			return fmt.Sprintf("%d %v %v", a.status, code, reason)
		}
	}
	return fmt.Sprintf("%d %v %v", a.status, code, members["message"])
}

func TestTheServerAnswersAsAGatewayDoes(t *testing.T) {
	var requests []request
	var differences []difference
	read(t, "requests.yaml", &requests)
	read(t, "differences.yaml", &differences)
	listed := map[string]string{}
	for _, d := range differences {
		if d.Why == "" || len(d.Gateway) == 0 {
			t.Errorf("%q has no reason or no request", d.Name)
		}
		for name, wanted := range d.Gateway {
			if _, twice := listed[name]; twice {
				t.Errorf("the request %q is listed twice", name)
			}
			listed[name] = wanted
		}
	}
	server, tokens := os.Getenv("STS"), os.Getenv("TOKENS")
	through := gateway(t, server)
	seen := map[string]bool{}
	for _, r := range requests {
		if seen[r.Name] {
			t.Errorf("the request %q stands twice", r.Name)
		}
		seen[r.Name] = true
		if r.Method == "" {
			r.Method = http.MethodGet
		}
		if r.Path == "" {
			r.Path = "/sts/exchange"
		}
		t.Run(r.Name, func(t *testing.T) {
			bearer := ""
			if r.Token != "none" {
				bearer = fetch(t, tokens+"/token/ci?"+r.Token)
			}
			ours, theirs := send(t, server, r, bearer), send(t, through, r, bearer)
			if ours.String() != r.Answer {
				t.Errorf("the server answers %q, not %q", ours, r.Answer)
			}
			wanted, isListed := listed[r.Name]
			same := reflect.DeepEqual(ours, theirs)
			switch {
			case isListed && same:
				t.Errorf("this is listed as a difference, and there is none: %q", ours)
			case isListed && theirs.String() != wanted:
				t.Errorf("the gateway answers %q, not %q as is listed", theirs, wanted)
			case !isListed && !same:
				t.Errorf("a difference that is not listed:\n  ours    %d %s %v\n  gateway %d %s %v", ours.status, ours.kind, ours.body, theirs.status, theirs.kind, theirs.body)
			}
		})
	}
	for name := range listed {
		if !seen[name] {
			t.Errorf("a difference is listed for %q, which is no request", name)
		}
	}
}
