// Go's net/http in the matrix: BASE CASE… → one JSON line a case, as the client's user would see it.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

var base = os.Args[1]

func ask(method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequest(method, base+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer placeholder-of-the-agent")
	request.Header.Set("Content-Type", "application/json")
	return http.DefaultClient.Do(request)
}

func parsed(method, path string, body io.Reader) (any, error) {
	answer, err := ask(method, path, body)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var found any
	err = json.NewDecoder(answer.Body).Decode(&found)
	return found, err
}

func download() (any, error) {
	answer, err := ask("GET", "/download", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, answer.Body)
	return map[string]any{"bytes": size, "sha256": hex.EncodeToString(sum.Sum(nil))}, err
}

func sse() (any, error) {
	answer, err := ask("GET", "/sse", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	seen := []string{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "data:") {
			continue
		}
		seen = append(seen, strings.TrimSpace(lines.Text()[5:]))
		if len(seen) == 1 {
			if _, err := parsed("GET", "/seen", nil); err != nil {
				return nil, err
			}
		}
	}
	return map[string]any{"events": seen}, nil
}

func refused() (any, error) {
	answer, err := ask("DELETE", "/refused", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return map[string]any{"status": answer.StatusCode, "text": string(text)}, err
}

func main() {
	deeds := map[string]func() (any, error){
		"get":  func() (any, error) { return parsed("GET", "/get", nil) },
		"post": func() (any, error) { return parsed("POST", "/post", strings.NewReader(`{"from":"go"}`)) },
		"upload": func() (any, error) {
			// Of unknown length, so that it is streamed.
			return parsed("POST", "/upload", io.MultiReader(bytes.NewReader(bytes.Repeat([]byte("u"), 96*32768))))
		},
		"download": download,
		"sse":      sse,
		"refused":  refused,
	}
	for _, one := range os.Args[2:] {
		found, err := deeds[one]()
		if err != nil {
			found = map[string]any{"error": err.Error()}
		}
		line, _ := json.Marshal(map[string]any{"case": one, "found": found})
		fmt.Println(string(line))
	}
}
