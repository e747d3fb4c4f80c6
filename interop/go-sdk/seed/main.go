package main

import (
	"context"
	"flag"
	"log"
	"os"

	"chainguard.dev/sdk/sts"
)

var token = flag.String("token", "", "Bot token")

func main() {
	flag.Parse()

	xchg := sts.New(
		"https://octo-sts.dev",
		"does-not-matter",
		sts.WithScope("your-org/your-repo"),
		sts.WithIdentity("foo"),
	)

	res, err := xchg.Exchange(context.Background(), *token)
	if err != nil {
		log.Fatalf("exchange failed: %v", err)
	}

	os.Stdout.WriteString(res)
}
