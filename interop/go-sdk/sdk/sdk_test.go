// What the public SDK (chainguard.dev/sdk/sts) makes of the server. Run by ../run, which says in the
// environment where everything is.
package sdk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chainguard.dev/sdk/sts"
	"golang.org/x/oauth2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	repository   = "octo-org/hello"
	organization = "octo-org"
)

// Servers by how they are reached: clear text and TLS.
func servers(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{"clear text": os.Getenv("STS"), "TLS": os.Getenv("STS_TLS")}
	for name, address := range found {
		if address == "" {
			t.Fatalf("no server over %s", name)
		}
	}
	return found
}

// How one and the same exchange is spelled.
var exchangers = map[string]func(address string, options ...sts.ExchangerOption) sts.Exchanger{
	"New": func(address string, options ...sts.ExchangerOption) sts.Exchanger {
		return sts.New(address, "does-not-matter", options...)
	},
	"ExchangePair": func(address string, options ...sts.ExchangerOption) sts.Exchanger { return pair{address, options} },
	"ExchangePair with WithHTTP1Downgrade": func(address string, options ...sts.ExchangerOption) sts.Exchanger {
		return pair{address, slices.Concat(options, []sts.ExchangerOption{sts.WithHTTP1Downgrade()})}
	},
	"NewHTTP1DowngradeExchanger": func(address string, options ...sts.ExchangerOption) sts.Exchanger {
		return sts.NewHTTP1DowngradeExchanger(address, "does-not-matter", options...)
	},
}

type pair struct {
	address string
	options []sts.ExchangerOption
}

func (p pair) Exchange(ctx context.Context, token string, options ...sts.ExchangerOption) (sts.TokenPair, error) {
	return sts.ExchangePair(ctx, p.address, "does-not-matter", token, slices.Concat(p.options, options)...)
}

func (p pair) Refresh(context.Context, string, ...sts.ExchangerOption) (string, string, error) {
	return "", "", errors.New("ExchangePair does not refresh")
}

// Runs `test` for each server and each way to exchange. Only gRPC tells more than an HTTP status.
func each(t *testing.T, test func(t *testing.T, make func(...sts.ExchangerOption) sts.Exchanger, overGRPC bool)) {
	for reached, address := range servers(t) {
		for name, exchanger := range exchangers {
			t.Run(reached+"/"+name, func(t *testing.T) {
				test(t, func(options ...sts.ExchangerOption) sts.Exchanger { return exchanger(address, options...) }, !strings.Contains(name, "HTTP1"))
			})
		}
	}
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func get(t *testing.T, address, bearer string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx(t), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// A fresh OIDC token for a policy; claims as a query.
func oidcToken(t *testing.T, policy, claims string) string {
	t.Helper()
	code, token := get(t, os.Getenv("TOKENS")+"/token/"+policy+"?"+claims, "")
	if code != http.StatusOK {
		t.Fatalf("no token for %s: %d", policy, code)
	}
	return token
}

// Fails unless the token opens exactly these repositories.
func opens(t *testing.T, token string, wanted ...string) {
	t.Helper()
	code, body := get(t, os.Getenv("GITHUB")+"/installation/repositories", token)
	var got struct{ Repositories []struct{ Name string } }
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil {
		t.Fatalf("the token does not work: %d, %v", code, err)
	}
	var names []string
	for _, repository := range got.Repositories {
		names = append(names, repository.Name)
	}
	if fmt.Sprint(names) != fmt.Sprint(wanted) {
		t.Errorf("the token opens %v, not %v", names, wanted)
	}
}

// Fails unless a call was refused so. Over HTTP/1 the SDK tells its callers the status line alone.
func refused(t *testing.T, err error, overGRPC bool, code codes.Code, reason string, line string) *errdetails.ErrorInfo {
	t.Helper()
	if err == nil {
		t.Fatalf("not refused: %s was wanted", reason)
	}
	if !overGRPC {
		if !strings.HasSuffix(err.Error(), line) {
			t.Errorf("%q, not %q", err, line)
		}
		return nil
	}
	got, isStatus := status.FromError(err)
	if !isStatus || got.Code() != code {
		t.Fatalf("%v, not %v", err, code)
	}
	for _, detail := range got.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetReason() != reason || info.GetDomain() != "octo-sts" {
				t.Errorf("%v, not %s", info, reason)
			}
			return info
		}
	}
	t.Fatalf("no ErrorInfo in %v", got.Details())
	return nil
}

func TestATokenIsGranted(t *testing.T) {
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, _ bool) {
		got, err := exchanger(sts.WithScope(repository), sts.WithIdentity("foo")).Exchange(ctx(t), oidcToken(t, "foo", ""))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.AccessToken, "ghs_") || got.RefreshToken != "" {
			t.Error("no token of an installation, or a refresh token beside it")
		}
		if left := time.Until(got.Expiry); left < 58*time.Minute || left > 61*time.Minute {
			t.Errorf("the token ends in %v", left)
		}
		opens(t, got.AccessToken, "hello")
	})
}

func TestOptionsOfACallCountToo(t *testing.T) {
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, _ bool) {
		got, err := exchanger().Exchange(ctx(t), oidcToken(t, "org/bar", ""), sts.WithScope(organization), sts.WithIdentity("bar"))
		if err != nil {
			t.Fatal(err)
		}
		opens(t, got.AccessToken, "hello", "website")
	})
}

func TestOneScopeMayBeGivenTwice(t *testing.T) {
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, _ bool) {
		got, err := exchanger(sts.WithScope(repository, repository), sts.WithIdentity("foo")).Exchange(ctx(t), oidcToken(t, "foo", ""))
		if err != nil {
			t.Fatal(err)
		}
		opens(t, got.AccessToken, "hello")
	})
}

func TestWhatMeansNothingHereDoesNoHarm(t *testing.T) {
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, _ bool) {
		options := []sts.ExchangerOption{
			sts.WithScope(repository), sts.WithIdentity("foo"),
			sts.WithCapabilities("groups.list", "roles.list"), sts.WithIdentityProvider("some-provider"),
		}
		got, err := exchanger(options...).Exchange(ctx(t), oidcToken(t, "foo", ""))
		if err != nil {
			t.Fatal(err)
		}
		opens(t, got.AccessToken, "hello")
	})
}

func TestRefusalsAreTold(t *testing.T) {
	good := []sts.ExchangerOption{sts.WithScope(repository), sts.WithIdentity("foo")}
	but := func(option sts.ExchangerOption) []sts.ExchangerOption { return append(slices.Clip(good), option) }
	cases := map[string]struct {
		token, claims string
		options       []sts.ExchangerOption
		code          codes.Code
		reason, line  string
	}{
		"two scopes":             {options: but(sts.WithScope(repository, "octo-org/other")), code: codes.InvalidArgument, reason: "SCOPES_CONFLICT", line: "400 Bad Request"},
		"no scope":               {options: good[1:], code: codes.InvalidArgument, reason: "SCOPE_INVALID", line: "400 Bad Request"},
		"a scope that is none":   {options: but(sts.WithScope("a/b/c")), code: codes.InvalidArgument, reason: "SCOPE_INVALID", line: "400 Bad Request"},
		"no identity":            {options: good[:1], code: codes.InvalidArgument, reason: "IDENTITY_INVALID", line: "400 Bad Request"},
		"a capability and level": {options: but(sts.WithCapabilities("administration:write")), code: codes.PermissionDenied, reason: "PERMISSION_REFUSED", line: "403 Forbidden"},
		"a capability, no level": {options: but(sts.WithCapabilities("issues:")), code: codes.InvalidArgument, reason: "REQUEST_INVALID", line: "400 Bad Request"},
		"another policy":         {options: but(sts.WithIdentity("bar")), code: codes.NotFound, reason: "POLICY_NOT_FOUND", line: "404 Not Found"},
		"another owner":          {options: but(sts.WithScope("nobody/hello")), code: codes.NotFound, reason: "NOT_INSTALLED", line: "404 Not Found"},
		"another subject":        {options: good, claims: "sub=someone-else", code: codes.PermissionDenied, reason: "POLICY_MISMATCH", line: "403 Forbidden"},
		"another audience":       {options: good, claims: "aud=https://elsewhere.example", code: codes.PermissionDenied, reason: "POLICY_MISMATCH", line: "403 Forbidden"},
		"no JWT":                 {options: good, token: "ghp_none", code: codes.InvalidArgument, reason: "TOKEN_MALFORMED", line: "400 Bad Request"},
		"no token":               {options: good, token: " ", code: codes.Unauthenticated, reason: "CREDENTIAL_MISSING", line: "401 Unauthorized"},
	}
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, overGRPC bool) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				token := strings.TrimSpace(c.token)
				if c.token == "" {
					token = oidcToken(t, "foo", c.claims)
				}
				_, err := exchanger(c.options...).Exchange(ctx(t), token)
				refused(t, err, overGRPC, c.code, c.reason, c.line)
			})
		}
	})
}

func TestADenialSaysWhatFailed(t *testing.T) {
	for reached, address := range servers(t) {
		t.Run(reached, func(t *testing.T) {
			exchanger := sts.New(address, "", sts.WithScope(repository), sts.WithIdentity("foo"))
			_, err := exchanger.Exchange(ctx(t), oidcToken(t, "foo", "sub=someone-else&aud=elsewhere"))
			info := refused(t, err, true, codes.PermissionDenied, "POLICY_MISMATCH", "")
			if failed := info.GetMetadata()["failed"]; failed != "subject,audience" {
				t.Errorf("failed: %q", failed)
			}
			conditions := 0
			for _, detail := range status.Convert(err).Proto().GetDetails() {
				if strings.HasSuffix(detail.GetTypeUrl(), "/octosts.v1.Condition") {
					conditions++
				}
			}
			if conditions != 3 {
				t.Errorf("%d conditions are told of, not issuer, subject and audience", conditions)
			}
		})
	}
}

func TestNothingIsRefreshed(t *testing.T) {
	for reached, address := range servers(t) {
		t.Run(reached, func(t *testing.T) {
			_, _, err := sts.New(address, "").Refresh(ctx(t), oidcToken(t, "foo", ""))
			refused(t, err, true, codes.Unimplemented, "UNIMPLEMENTED", "")
			// This one asks at a path that the service's contract does not have.
			_, _, err = sts.NewHTTP1DowngradeExchanger(address, "").Refresh(ctx(t), oidcToken(t, "foo", ""))
			refused(t, err, false, codes.OK, "", "404 Not Found")
		})
	}
}

func TestOneExchangerServesManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, exchanger func(...sts.ExchangerOption) sts.Exchanger, _ bool) {
		shared := exchanger(sts.WithScope(repository), sts.WithIdentity("foo"))
		token := oidcToken(t, "foo", "")
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if _, err := shared.Exchange(ctx(t), token); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestTokenSourcesOfTheSDKWork(t *testing.T) {
	for reached, address := range servers(t) {
		t.Run(reached, func(t *testing.T) {
			held := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: oidcToken(t, "foo", "")})
			source := sts.NewContextTokenSource(ctx(t), held, sts.New(address, "", sts.WithScope(repository), sts.WithIdentity("foo")))
			got, err := source.Token()
			if err != nil {
				t.Fatal(err)
			}
			opens(t, got.AccessToken, "hello")
		})
	}
}

// The last audit record of the server over TLS that `matches`.
func record(t *testing.T, matches func(map[string]any) bool) map[string]any {
	t.Helper()
	for range 50 {
		lines, err := os.ReadFile(os.Getenv("AUDIT"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(lines)) {
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) == nil && matches(record) {
				return record
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no such audit record")
	return nil
}

func TestTheUserAgentIsRecorded(t *testing.T) {
	for name, exchanger := range exchangers {
		t.Run(name, func(t *testing.T) {
			agent := "interop-" + strings.ReplaceAll(name, " ", "-") + "/1.0"
			options := []sts.ExchangerOption{sts.WithScope(repository), sts.WithIdentity("foo"), sts.WithUserAgent(agent)}
			if _, err := exchanger(os.Getenv("STS_TLS"), options...).Exchange(ctx(t), oidcToken(t, "foo", "")); err != nil {
				t.Fatal(err)
			}
			found := record(t, func(record map[string]any) bool {
				got, _ := record["user_agent"].(string)
				return got == agent || strings.HasPrefix(got, agent+" ")
			})
			if found["result"] != "granted" {
				t.Errorf("%v", found["result"])
			}
		})
	}
}

// A known issuer that takes connections and never answers: the caller's deadline ends the exchange,
// on both sides.
func TestADeadlineEndsTheExchange(t *testing.T) {
	address, err := url.Parse(os.Getenv("SILENT_ISSUER"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims := fmt.Sprintf(`{"iss":%q,"sub":"patient","aud":"octo-sts.localhost","exp":%d}`, address, time.Now().Add(time.Hour).Unix())
	token := part(`{"alg":"RS256","kid":"k"}`) + "." + part(claims) + "." + part(strings.Repeat("s", 256))

	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = sts.New(os.Getenv("STS_TLS"), "", sts.WithScope(repository), sts.WithIdentity("foo"), sts.WithUserAgent("patient")).Exchange(short, token)
	if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took > 3*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	ended := record(t, func(record map[string]any) bool {
		return strings.HasPrefix(fmt.Sprint(record["user_agent"]), "patient")
	})
	if took, _ := ended["duration_ms"].(float64); took > 2500 || ended["result"] == "granted" {
		t.Errorf("the server went on: %v", ended)
	}
}

func TestAnUntrustedCertificateIsNotTalkedTo(t *testing.T) {
	address := strings.Replace(os.Getenv("STS_TLS"), "localhost", "127.0.0.2", 1)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := sts.NewHTTP1DowngradeExchanger(address, "").Exchange(short, oidcToken(t, "foo", ""))
	if err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("%v", err)
	}
}
