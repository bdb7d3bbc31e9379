// Command fsck checks a whole tlog-tiles log over HTTP with tessera's checker, and says by its exit code what it found.
//
// tessera's own command exits with 0 when the check has failed, and both it and the library wait for ever where an
// entry does not hash to its leaf. So the check runs beside a timer here, and what is not proved good in time is bad.
//
//	fsck -url http://127.0.0.1:8080/ -key 'origin+hash+key' -timeout 30s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	address := flag.String("url", "", "address of the log")
	key := flag.String("key", "", "the log's verifier key")
	timeout := flag.Duration("timeout", 30*time.Second, "how long the check may take")
	flag.Parse()
	started := time.Now()
	done := make(chan error, 1)
	go func() { done <- check(*address, *key) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(*timeout):
		err = errors.New("not proved good in time")
	}
	if err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
	fmt.Println("OK", time.Since(started).Round(time.Millisecond))
}

func check(address, key string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	root, err := url.Parse(address)
	if err != nil {
		return err
	}
	source, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return err
	}
	return fsck.New(verifier.Name(), verifier, source, leafHashes, fsck.Opts{N: 2}).Check(context.Background())
}

func leafHashes(content []byte) ([][]byte, error) {
	var bundle api.EntryBundle
	if err := bundle.UnmarshalText(content); err != nil {
		return nil, err
	}
	hashes := make([][]byte, 0, len(bundle.Entries))
	for _, entry := range bundle.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}
