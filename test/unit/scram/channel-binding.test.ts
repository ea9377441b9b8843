import { X509Certificate } from "node:crypto";
import { describe, expect, test } from "vitest";
import { tlsServerEndPoint } from "../../../src/scram/channel-binding.ts";

/** Self-signed certificates by `openssl req -x509`, in base64, and the digest of each by `openssl dgst`. */
const certificates: Readonly<Record<string, { readonly der: string; readonly digest: string | undefined }>> =
  {
    "ec-sha256": {
      der: "MIIBfjCCASWgAwIBAgIULZURZeyqw1euJ464MEoKRTfrsr4wCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJZWMtc2hhMjU2MCAXDTI2MTEyMTAxMDkzOVoYDzIxMjYxMDI4MDEwOTM5WjAUMRIwEAYDVQQDDAllYy1zaGEyNTYwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAR/G/qPrEZR+0wqwsL6zdWObHef6Jm+noiKGOPTVeHbHLa1iVqe5S+WaMcGF5ohRgU60YGNpIEC+tXyV3PhYvaio1MwUTAdBgNVHQ4EFgQUlYJjbMmUeDizOR0Jp+PFzjI3YmowHwYDVR0jBBgwFoAUlYJjbMmUeDizOR0Jp+PFzjI3YmowDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAulYjF8DqiBVXkE6mhJzJ3OIDx1UVU8RZBmMMtk+jEYwIgEEsYxCqpVrPCLkTpXiDwrTd3ESrgNu1XmSejwJZFlZY=",
      digest: "14e3fd122e547344c6cbcdda3a9e55a0e64b1559f6c74615e9304bc1669b351f",
    },
    "ec-sha384": {
      der: "MIIBfzCCASWgAwIBAgIUR4FxUQtpiMDoiwUQLUlNU/XMi44wCgYIKoZIzj0EAwMwFDESMBAGA1UEAwwJZWMtc2hhMzg0MCAXDTI2MTEyMTAxMDkzOVoYDzIxMjYxMDI4MDEwOTM5WjAUMRIwEAYDVQQDDAllYy1zaGEzODQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASjVOHQ8Bk40SpCI1coNyZv4tJLiETlHIhfozqpVhULhZ+cJG5CE1orsAuYpbRkSzZ72GUt3K7Y3rVGSz2RdqCVo1MwUTAdBgNVHQ4EFgQUIDmkzBiLT2Whh1GNya7Rb1TVZJowHwYDVR0jBBgwFoAUIDmkzBiLT2Whh1GNya7Rb1TVZJowDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAwNIADBFAiBu7ZF04omK0IZoozvzOoXLo4XXV9+BnGu8v+mpojpQKAIhAOf8rdnza0S1xoYC8fFFPyXdTvJMIHYe37TtsGcVd1vF",
      digest:
        "cc9fe7b417639590ffb0c43cd2aefb7f3f37049225b9d14c430b68776e1a6237009d1048e7cc9858e9c81844ab252041",
    },
    "ec-sha512": {
      der: "MIIBfzCCASWgAwIBAgIUbhZji56qnpERI8W26lWOxZjdCqAwCgYIKoZIzj0EAwQwFDESMBAGA1UEAwwJZWMtc2hhNTEyMCAXDTI2MTEyMTAxMDkzOVoYDzIxMjYxMDI4MDEwOTM5WjAUMRIwEAYDVQQDDAllYy1zaGE1MTIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQExxnGBfibWKsEl+Y6IerA7rqN8OfAthyWPjbloaDTc/YDUQL+tahC9ijg7yg/iu+rBjrDDCIoBaqj1eJtWKg9o1MwUTAdBgNVHQ4EFgQUspqIzwSbHJ0Chw/BWW8Xhsdb8uUwHwYDVR0jBBgwFoAUspqIzwSbHJ0Chw/BWW8Xhsdb8uUwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDBANIADBFAiAjHVMWdSBlHy9DJBScEBSwbbXHmBtL+gP2O+5zKvrZxwIhAOe92QyBwIsnftmUjc95FrzYvXstMzCnJrhFWTr3eoeb",
      digest:
        "9b4a74453a1c3c3c1c33465ac5989174f88b8bae10114474f4adc185aace83b834c955542a9098aeadf75bb4a3bb6139639f4cadeb938f80bab12ccb3bcd260c",
    },
    "ec-sha1": {
      der: "MIIBeTCCASCgAwIBAgIUa4uhTvJjZvhsDjI9t6G3LBdywOAwCQYHKoZIzj0EATASMRAwDgYDVQQDDAdlYy1zaGExMCAXDTI2MTEyMTAxMDkzOVoYDzIxMjYxMDI4MDEwOTM5WjASMRAwDgYDVQQDDAdlYy1zaGExMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDkRiOa4mLnaZzwlP3fVYCPiq9K84MsLXuZzSafEjtbohmWnmXNZds4Bteeb2XogWiYTX3htGEIRjz/ZOQ/5i3aNTMFEwHQYDVR0OBBYEFCQpe9MjwlDxARuaCH3lcK3joQjtMB8GA1UdIwQYMBaAFCQpe9MjwlDxARuaCH3lcK3joQjtMA8GA1UdEwEB/wQFMAMBAf8wCQYHKoZIzj0EAQNIADBFAiEA5pTPMSEdEG38a78DPABhTv0axvJyhpPMfp37dOPOdGYCIH1aU020cBGvR+uVtQHrdoPS1WRRNJJwTWzwXFb8yTGZ",
      digest: "8b6b5f1becf6db6098bc7e80eb5da654388c3f3942d3f66db0c39c7fe852bf9a",
    },
    "rsa-sha256": {
      der: "MIICCDCCAXGgAwIBAgIUKgmjuoxohy+Ous4DVzK1HLR038gwDQYJKoZIhvcNAQELBQAwFTETMBEGA1UEAwwKcnNhLXNoYTI1NjAgFw0yNjExMjEwMTA5MzlaGA8yMTI2MTAyODAxMDkzOVowFTETMBEGA1UEAwwKcnNhLXNoYTI1NjCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEAwP0yjNxsZLLc+thbe0Ob8NeXw3s3xudHsxDHysxv2Nu5T42Jw/aF4VB2vjkrjYHoxO8Lw+mWgqtIs8h0GEv6eSuy3ydFdVvFLlmRRB0CuOi0qau+5xF05zZgJ3tWoJNpXRqOPSb1AUJQkiaL0LFyWTBpPyIZsWBQURU8xhAY4XECAwEAAaNTMFEwHQYDVR0OBBYEFGUFNXxQYuJN8ozok+NKrQJcofIrMB8GA1UdIwQYMBaAFGUFNXxQYuJN8ozok+NKrQJcofIrMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADgYEAjehmP92V8pcnmD/Ro5YiKRXBtE7RbXt1fPp/eLnE1687fpNvckcOFe00d3LRGlyIwvAl3qx8j8Zm3YBSEkSQ9xhbRD8y3ocI/O99pq+7af0rNGgCsNDoTAQq1Dqxk4v0e8hbHNOuXwc2yIz71v+6cZ3doeZSOqyxqZJF2HlGkOs=",
      digest: "0a3464a30fad70d5442ec9e6093985ed0af29c9d73394f6b72ace5299a9a2cb4",
    },
    "rsa-pss-sha384": {
      der: "MIICeDCCAa2gAwIBAgIUNSTKlQOf4RcnSyXIJr040KzoD0owQQYJKoZIhvcNAQEKMDSgDzANBglghkgBZQMEAgIFAKEcMBoGCSqGSIb3DQEBCDANBglghkgBZQMEAgIFAKIDAgFOMBkxFzAVBgNVBAMMDnJzYS1wc3Mtc2hhMzg0MCAXDTI2MTEyMTAxMDkzOVoYDzIxMjYxMDI4MDEwOTM5WjAZMRcwFQYDVQQDDA5yc2EtcHNzLXNoYTM4NDCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEAvD1ByVty9tFvKWPScpRcu2mQVi+tT0F+ui7ywfXusbJcJ3koGx5T1uKSTkaUKyjvTqVOiNuZJ/0LHMdSFOVMPSYjwAE5KlmdeFTZxF9lPG8kej+GvkXmaKkC8RnlNxhVCrGRoIBQKANFR/jwtRsPevUeTGlEZw/5ziPJ8pHhcL8CAwEAAaNTMFEwHQYDVR0OBBYEFF8ZYLnyYzYk3XUmdxQ7oLTiK/5zMB8GA1UdIwQYMBaAFF8ZYLnyYzYk3XUmdxQ7oLTiK/5zMA8GA1UdEwEB/wQFMAMBAf8wQQYJKoZIhvcNAQEKMDSgDzANBglghkgBZQMEAgIFAKEcMBoGCSqGSIb3DQEBCDANBglghkgBZQMEAgIFAKIDAgFOA4GBABYEljWPEZlXvh8dxdrDeMqlpOf26sEpQ/Uzbz54P6dorWTZbltd5FdZkgXPqFevJxAvYOwWtTA2mAAcmItBWXoGU6Ake6SfTGNXaxbQNn9nnhRBCa73YTTwNxoLm4TCkY0Xfg4AGo9oe7pwNYsdyHOAQVUPNhEe6exXqo44sicB",
      digest:
        "fbe738a7ae45441898ed382f17c9a552f32c5265e979978b2a1a05a771f16389995a631bdef7dee58dec7549f1adafed",
    },
    "rsa-pss-sha1": {
      der: "MIICFjCCAXqgAwIBAgIUUE4b2vIqdwaAcBY8Sg7ggxnAt8YwEgYJKoZIhvcNAQEKMAWiAwIBajAXMRUwEwYDVQQDDAxyc2EtcHNzLXNoYTEwIBcNMjYxMTIxMDEwOTM5WhgPMjEyNjEwMjgwMTA5MzlaMBcxFTATBgNVBAMMDHJzYS1wc3Mtc2hhMTCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEA4LQWSdU9sa789JKg8dSTr5Y8Pp6XVflrrwSCV5uPrGp3X57vckws7FjiihSRS/OKatfLzM3lUT/t8KEqE3XN6JsiRnjt+UrZNzdI7FdKHRhEJgJXec3hLZRD4X7z81v+n804YRD8vAsjtGa98Mp6bFjG8tr6Xs9dpJkt39Sm+08CAwEAAaNTMFEwHQYDVR0OBBYEFNil0pozUUrawLQKmrS/XnZotMUHMB8GA1UdIwQYMBaAFNil0pozUUrawLQKmrS/XnZotMUHMA8GA1UdEwEB/wQFMAMBAf8wEgYJKoZIhvcNAQEKMAWiAwIBagOBgQDCBOeS6xR28ikYaPTJuC5e5KdpPsOu9wIWXxhJM7AvXNakB/v2bBPgZpBOuMYaeexmMyUCwhVZPcGce4cPHxuAb4VoKldEvAjBOsDMDRnm3wDigq1ICPYY8Zsr7CVxGqVYF/oh/Rc59WYXiZPTZXo7Fqn2haZQmziKD9/3wymVqA==",
      digest: "a37ba8703c2349ece8aa08c3bada70cff7e088b87ec191a5608d53e5f3c53cfc",
    },
    ed25519: {
      der: "MIIBOjCB7aADAgECAhRSjJ5AjAx1YvgO98Vi8IKL6rShDDAFBgMrZXAwEjEQMA4GA1UEAwwHZWQyNTUxOTAgFw0yNjExMjEwMTA5MzlaGA8yMTI2MTAyODAxMDkzOVowEjEQMA4GA1UEAwwHZWQyNTUxOTAqMAUGAytlcAMhAPBeaiEApF+Q6vOYkU5zQOvpduJ3/njBIBLCc71yweJdo1MwUTAdBgNVHQ4EFgQUl5iPpKrvHTBDbPcYruoQhHAhbjEwHwYDVR0jBBgwFoAUl5iPpKrvHTBDbPcYruoQhHAhbjEwDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXADQQAImowW30sht+vhM1nR7Lk/IN9SgSW6YJkijxBe3YWgsiNXggb8bK0z12R3l024GPRV1vx26dI11jXgh0lJ8rsA",
      digest: undefined,
    },
  };

function der(name: string): Buffer {
  return Buffer.from(certificates[name]?.der ?? "", "base64");
}

describe("tls-server-end-point", () => {
  test.each(Object.keys(certificates))("hashes a certificate signed with %s as RFC 5929 says", (name) => {
    expect(new X509Certificate(der(name)).subject).toBe(`CN=${name}`);
    expect(tlsServerEndPoint(der(name))?.toString("hex")).toBe(certificates[name]?.digest);
  });

  test("knows no binding for a signature algorithm that it does not know", () => {
    const unknown = Buffer.from(
      der("ec-sha256").toString("hex").replaceAll("2a8648ce3d040302", "2a8648ce3d040309"),
      "hex",
    );
    expect(tlsServerEndPoint(unknown)).toBeUndefined();
  });

  test("knows no binding for what is no certificate, and never throws on it", () => {
    const certificate = der("rsa-pss-sha384");
    for (const bytes of [
      Buffer.alloc(0),
      Buffer.from("30", "hex"),
      Buffer.from("3080", "hex"),
      Buffer.from("3085010203040506", "hex"),
      Buffer.from("no certificate"),
    ]) {
      expect(tlsServerEndPoint(bytes)).toBeUndefined();
    }
    for (let length = 0; length < certificate.length; length += 1) {
      expect(tlsServerEndPoint(certificate.subarray(0, length))).toBeUndefined();
    }
  });
});
